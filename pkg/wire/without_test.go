package wire

import (
	"bytes"
	"slices"
	"testing"

	"github.com/conntrackgo/conntrackgo/pkg/flow"
	"github.com/google/go-cmp/cmp"
)

// forget removes attributes of Without from a flow.
func forget(f flow.Flow, has flow.Has) flow.Flow {
	f.Has &^= has
	if has.Has(flow.HasMark) {
		f.Mark = 0
	}
	if has.Has(flow.HasHelper) {
		f.Helper = [16]byte{}
	}
	if has.Has(flow.HasLabels) {
		f.Labels = [4]uint32{}
	}
	return f
}

// TestWithout: for each set of attributes nothing of them is sent, nothing of
// them is read, and the rest is as it was.
func TestWithout(t *testing.T) {
	nums := map[flow.Has]int{flow.HasMark: 7, flow.HasHelper: 27, flow.HasLabels: 28}
	for name, f := range richFlows() {
		whole := full.AppendFlow(nil, Header{}, &f)
		for set := range 1 << len(optional) {
			o, without := full, []int(nil)
			for i, a := range optional {
				if set>>i&1 != 0 {
					o.Without |= a.has
					without = append(without, nums[a.has])
				}
			}
			want := slices.DeleteFunc(numbers(whole), func(n int) bool { return slices.Contains(without, n) })
			raw := o.AppendFlow(nil, Header{}, &f)
			if got := numbers(raw); !slices.Equal(got, want) {
				t.Errorf("%s without %v: sent %v, want %v", name, without, got, want)
			}
			var got, plain flow.Flow
			must(t, full.ParseFlow(whole[shortHeader:], &plain))
			must(t, o.ParseFlow(whole[shortHeader:], &got))
			if d := cmp.Diff(forget(plain, o.Without), got); d != "" {
				t.Errorf("%s without %v: read (-want +got):\n%s", name, without, d)
			}
		}
	}
}

// TestWithoutStillJudges: an attribute that is not read has to be well-formed,
// or what comes after it is anybody's guess.
func TestWithoutStillJudges(t *testing.T) {
	o := Options{Without: flow.HasMark | flow.HasHelper | flow.HasLabels}
	var f flow.Flow
	for name, c := range map[string]struct {
		attr []byte
		want error
	}{
		"mark of five bytes": {attr(7, 1, 2, 3, 4, 5), ErrAttrSize},
		"long helper":        {attr(27, bytes.Repeat([]byte{'a'}, 13)...), ErrAttrSize},
		"unknown number":     {attr(33, 1, 2, 3, 4), ErrUnknownAttr},
		"good mark":          {attr(7, 1, 2, 3, 4), nil},
	} {
		if err := o.ParseFlow(body(attrIPv4, attrTCP, c.attr, attrPorts), &f); err != c.want {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	// With what belongs to another protocol the body is read twice.
	must(t, o.ParseFlow(body(attrIPv4, attrTCP, attrPorts, attr(22, 8), attr(7, 1, 2, 3, 4)), &f))
	if f.Has.Has(flow.HasMark) || f.Mark != 0 || !f.Has.Has(flow.HasPorts) {
		t.Errorf("read %+v", f)
	}
}

// TestWithoutAndExpectations: an expectation's helper is another matter.
func TestWithoutAndExpectations(t *testing.T) {
	o := Options{Without: flow.HasHelper}
	e := richExpect()
	var got flow.Expect
	must(t, o.ParseExpect(o.AppendExpect(nil, Header{Type: ExpNew}, &e)[shortHeader:], &got))
	if got != e {
		t.Errorf("expectation (-sent +arrived):\n%s", cmp.Diff(e, got))
	}
}
