package link

import "testing"

// Full batches over the loopback device, as under load; the time is that of
// one datagram, sent and received.
func BenchmarkSendRecv(b *testing.B) {
	cfg := ends("127.0.0.1", "127.0.0.2")
	cfg.Interface, cfg.Port = "lo", 39780
	tx, err := Open(cfg)
	if err != nil {
		b.Fatal(err)
	}
	defer tx.Close()
	cfg.Local, cfg.Peer = cfg.Peer, cfg.Local
	rx, err := Open(cfg)
	if err != nil {
		b.Fatal(err)
	}
	defer rx.Close()
	batch := make([][]byte, 64)
	for i := range batch {
		batch[i] = make([]byte, 1468)
	}
	in := NewBatch(64, 2048)
	b.ReportAllocs()
	b.SetBytes(1468)
	for done := 0; done < b.N; done += len(batch) {
		if n, err := tx.Send(batch); n != len(batch) || err != nil {
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
