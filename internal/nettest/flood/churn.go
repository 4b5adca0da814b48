package flood

// Churn is flows that come, change once and go, all of it mixed as in real
// traffic: while flow i is made, flow i-Live gets its answer and flow i-2*Live
// ends. Each flow makes three events.
type Churn struct {
	From, To int
	Rate     int // events per second, 0 for as many as possible
	Live     int
	// Flow fills f, which is zero, as the flow is after its change. A TCP
	// flow is made as SYN_SENT, and none has an answer at first.
	Flow func(i int, f *Flow)
	// Between, if set, is called once for each group of requests, between
	// two of them.
	Between func()
}

// Events is the number of events of the whole churn.
func (c *Churn) Events() int { return 3 * (c.To - c.From) }

const synSent = 1

// Churn runs until the last flow has ended.
func (w *Writer) Churn(c Churn) (Result, error) {
	s := schedule{flows: c.To - c.From, live: c.Live}
	return w.paced(c.Events(), c.Rate, func(_ int, f *Flow) op {
		i, o := s.next()
		c.Flow(c.From+i, f)
		if o == opCreate {
			f.Status = Confirmed
			if f.Proto == TCP {
				f.State = synSent
			}
		}
		return o
	}, c.Between)
}

// A schedule deals out the requests of a churn.
type schedule struct {
	flows, live int
	at          int // a third of a turn each: make, change, end
}

// next returns the next flow and what happens to it.
func (s *schedule) next() (flow int, o op) {
	for {
		turn, third := s.at/3, s.at%3
		s.at++
		flow = turn - third*s.live
		if flow >= 0 && flow < s.flows {
			return flow, [3]op{opCreate, opUpdate, opDelete}[third]
		}
	}
}
