package flow

// Expectation flags (CTA_EXPECT_FLAGS).
const (
	ExpectPermanent uint32 = 1
	ExpectInactive  uint32 = 2
	ExpectUserspace uint32 = 4
)

// Expect is one expectation: a flow that a helper announced. The zone of all
// tuples is Tuple.Zone.
type Expect struct {
	Has                 Has
	Master, Tuple, Mask Key
	Timeout             uint32   // CTA_EXPECT_TIMEOUT, seconds
	Flags               uint32   // CTA_EXPECT_FLAGS
	Class               uint32   // CTA_EXPECT_CLASS
	ID                  uint32   // CTA_EXPECT_ID
	NAT                 Key      // CTA_EXPECT_NAT_TUPLE; HasSNAT: addresses, HasSPAT: ports
	NATDir              uint32   // CTA_EXPECT_NAT_DIR: 0 original, 1 reply
	Helper              [16]byte // CTA_EXPECT_HELP_NAME, NUL-padded
	Fn                  [32]byte // CTA_EXPECT_FN, NUL-padded
}
