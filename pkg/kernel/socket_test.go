package kernel

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestExplain(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("netlink join-group: %w", os.NewSyscallError("setsockopt", unix.EPERM)),
			"operation not permitted (this takes root or CAP_NET_ADMIN in the network namespace)"},
		{unix.EINVAL, "invalid argument (is the kernel module nf_conntrack_netlink missing?)"},
		{unix.ENOBUFS, "no buffer space available"},
		{os.ErrClosed, "file already closed"},
	} {
		got := explain(c.err)
		if got.Error() != c.want {
			t.Errorf("%v: got %q, want %q", c.err, got, c.want)
		}
	}
}

// TestWriterSendBuffer: a whole send fits whatever net.core.wmem_default says.
func TestWriterSendBuffer(t *testing.T) {
	ownNetNS(t)
	w := openWriter(t, WriterConfig{})
	err := w.sock.control(func(fd int) error {
		size, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
		if err == nil && size < 4*sendLimit {
			err = fmt.Errorf("send buffer of %d bytes, want %d", size, 4*sendLimit)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
