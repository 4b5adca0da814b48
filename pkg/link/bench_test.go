package link

import (
	"net/netip"
	"testing"
)

// Full batches over the loopback device, as under load; the time is that of
// one datagram, sent and received.
func BenchmarkSendRecv(b *testing.B) {
	b.Run("pair", func(b *testing.B) {
		tx, rx := openBench(b, ends("127.0.0.1", "127.0.0.2")), openBench(b, ends("127.0.0.2", "127.0.0.1"))
		benchmark(b, tx.Send, rx)
	})
	b.Run("group", func(b *testing.B) {
		to, cfg := netip.MustParseAddr("127.0.0.2"), ends("127.0.0.1", "127.0.0.2")
		cfg.Group, cfg.Peers = true, []netip.Addr{to, netip.MustParseAddr("127.0.0.3")}
		tx, rx := openBench(b, cfg).(*Group), openBench(b, ends("127.0.0.2", "127.0.0.1"))
		benchmark(b, func(batch [][]byte) (int, error) { return tx.SendTo(to, batch) }, rx)
	})
}

func openBench(b *testing.B, cfg Config) Link {
	cfg.Interface, cfg.Port = "lo", 39780
	l, err := Open(cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	return l
}

func benchmark(b *testing.B, send func([][]byte) (int, error), rx Link) {
	batch := make([][]byte, 64)
	for i := range batch {
		batch[i] = make([]byte, 1468)
	}
	in := NewBatch(64, 2048)
	b.ReportAllocs()
	b.SetBytes(1468)
	for done := 0; done < b.N; done += len(batch) {
		if n, err := send(batch); n != len(batch) || err != nil {
			b.Fatal(n, err)
		}
		for got := 0; got < len(batch); {
			n, err := rx.Recv(in)
			if err != nil {
				b.Fatal(err)
			}
			got += n
		}
	}
}
