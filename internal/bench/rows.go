package main

import "fmt"

// A row is one line of the table. Values are better when smaller.
type row struct {
	id     string
	name   string
	unit   string
	target float64 // the most ours/C may be; 0: shown only
	limit  float64 // the most ours may be; negative: none
	// whole rows count: values are summed over the rounds and shown as
	// "so many of so many"; ours must be complete.
	whole bool
}

// A section is a heading of the report.
type section struct {
	title string
	rows  []row
}

// none is a limit no value reaches.
const none = -1

func ratioRow(id, name, unit string, target float64) row {
	return row{id: id, name: name, unit: unit, target: target, limit: none}
}

func limitRow(id, name, unit string, limit float64) row {
	return row{id: id, name: name, unit: unit, limit: limit}
}

// perEvent, perMessage are the units of CPU time.
const (
	perEvent   = "s/M events"
	perMessage = "s/M messages"
)

// rates are those of the CPU rows and of the plot, with the most ours/C may be.
var rates = []struct {
	rate   int
	target float64
}{{100_000, 0.5}, {50_000, 0.6}, {20_000, 0.65}, {10_000, 0.8}, {5_000, 0.9}, {1_000, 1.0}}

func rateID(rate int) string { return fmt.Sprintf("sender-%s", short(rate)) }

// short writes a round number: 500k, 1M.
func short(n int) string {
	switch {
	case n >= 1_000_000 && n%1_000_000 == 0:
		return fmt.Sprintf("%dM", n/1_000_000)
	case n >= 1000 && n%1000 == 0:
		return fmt.Sprintf("%dk", n/1000)
	}
	return fmt.Sprint(n)
}

// sections are the report, top to bottom.
func sections() []section {
	return []section{
		{"Events", eventRows()},
		{"Latency", latencyRows()},
		{"Large tables", tableRows()},
		{"Memory", memoryRows()},
		{"Growth", growthRows()},
		{"When something goes wrong", troubleRows()},
		{"Real packets", packetRows()},
	}
}

func eventRows() []row {
	rows := []row{
		ratioRow("sender-max", "sender CPU, highest rate", perEvent, 0.45),
		limitRow("lost-max", "events lost at that rate", "%", 0),
		{id: "reached-max", name: "rate reached", unit: "k events/s", limit: none},
	}
	for _, r := range rates {
		rows = append(rows, ratioRow(rateID(r.rate), fmt.Sprintf("sender CPU, %s events/s", short(r.rate)), perEvent, r.target))
	}
	return append(rows,
		ratioRow("idle-cpu", "CPU when idle", "ms/s", 1.0),
		ratioRow("idle-wake", "wake-ups when idle", "/s", 1.0),
		ratioRow("receiver-external", "receiver CPU, external cache on", perMessage, 0.5),
		ratioRow("receiver-inject", "receiver CPU, direct injection", perMessage, 0.65),
		ratioRow("bytes", "bytes on the link, 20k events/s", "B/event", 1.0),
	)
}

// latencyRates are those of the latency rows; 0 is an idle sender.
var latencyRates = []int{0, 5_000, 20_000}

func latencyID(kind string, rate int, p string) string {
	return fmt.Sprintf("%s-%s-%s", kind, short(rate), p)
}

func latencyName(rate int) string {
	if rate == 0 {
		return "idle"
	}
	return short(rate) + " events/s"
}

func latencyRows() (rows []row) {
	for _, kind := range []struct{ id, name string }{{"datagram", "event to datagram"}, {"visible", "event to peer's kernel"}} {
		for _, rate := range latencyRates {
			for _, p := range []string{"p50", "p99"} {
				rows = append(rows, ratioRow(latencyID(kind.id, rate, p), kind.name+", "+latencyName(rate)+", "+p, "ms", 0.9))
			}
		}
	}
	return append(rows, limitRow("coalesced-p99", "event to datagram, coalescing, 20k events/s, p99", "ms", 3))
}

func tableRows() []row {
	rows := []row{
		ratioRow("start-100k", "start, 100k entries", "s", 0.55),
		ratioRow("start-500k", "start, 500k entries", "s", 0.55),
		ratioRow("start-1M", "start, 1M entries", "s", 0.55),
	}
	for _, n := range []struct {
		size             string
		commit, recommit float64
	}{{"100k", 0.65, 0.3}, {"500k", 0.55, 0.3}} {
		rows = append(rows,
			ratioRow("resync-"+n.size, "full resync -n, "+n.size, "s", 0.7),
			row{id: "complete-" + n.size, name: "resyncs complete, " + n.size, unit: "", limit: none, whole: true},
			ratioRow("commit-"+n.size, "commit -c, "+n.size+", empty table", "s", n.commit),
			ratioRow("recommit-"+n.size, "commit -c, "+n.size+", all exist", "s", n.recommit),
		)
	}
	return append(rows,
		ratioRow("dump-e", "dump -e of 500k", "s", 0.5),
		ratioRow("dump-i", "dump -i of 500k", "s", 0.5),
		limitRow("hold-e", "loop held by -e of 500k", "ms", 5),
		limitRow("hold-i", "loop held by -i of 500k", "ms", 5),
		ratioRow("sweep", "-R with 500k", "s", 0.5),
		limitRow("sweep-wait", "another client's -s during -R", "ms", 50),
		ratioRow("flush", "-F with 500k", "s", 0.5),
		limitRow("flush-wait", "another client's -s during -F", "ms", 50),
	)
}

func memoryRows() []row {
	const unit = "B/entry"
	return []row{
		ratioRow("internal-4", "internal, IPv4, 1M entries", unit, 0.25),
		ratioRow("external-4", "external, IPv4, 1M entries", unit, 0.25),
		ratioRow("internal-6", "internal, IPv6, 1M entries", unit, 0.35),
		ratioRow("external-6", "external, IPv6, 1M entries", unit, 0.35),
		{id: "empty", name: "empty daemon", unit: "MB", limit: none},
	}
}

// sizes are the tables of the growth rows and plots. C's are as large as it
// is quick enough for.
var sizes = []int{10_000, 100_000, 1_000_000, 4_000_000}

const largestC = 1_000_000

func growthID(n int) string { return "growth-" + short(n) }

func growthRows() (rows []row) {
	for _, n := range sizes {
		rows = append(rows, row{id: growthID(n), name: "sender CPU of updates, " + short(n) + " entries", unit: perEvent, limit: none})
	}
	return rows
}

func troubleRows() []row {
	rows := []row{
		ratioRow("overrun-wall", "repair after an overrun, 500k", "s", 0.3),
		ratioRow("overrun-cpu", "CPU for it, both nodes", "s", 0.3),
		ratioRow("stall-100k", "TCP stall at failover, 100k more entries", "s", 0.6),
		{id: "script-100k", name: "primary-backup.sh primary, 100k more", unit: "s", limit: none},
		ratioRow("stall-500k", "TCP stall at failover, 500k more entries", "s", 0.6),
		{id: "script-500k", name: "primary-backup.sh primary, 500k more", unit: "s", limit: none},
	}
	for _, n := range []int{100_000, 500_000} {
		stall, called, renewal := holdIDs(n)
		rows = append(rows,
			limitRow(stall, "TCP stall at failover, held, "+short(n)+" more entries", "s", 0.5),
			row{id: called, name: "UDP flows older than their timeout that go on, " + short(n) + " more", unit: "", limit: none, whole: true},
			row{id: renewal, name: "backup's CPU for what it holds, " + short(n), unit: "s/M renewals", limit: none},
		)
	}
	return rows
}

func packetRows() []row {
	return []row{
		{id: "packets-udp", name: fmt.Sprintf("sender CPU, %d UDP flows/s", udpRate), unit: perEvent, limit: none},
		{id: "packets-tcp", name: fmt.Sprintf("sender CPU, %d TCP connections/s", tcpRate), unit: perEvent, limit: none},
	}
}
