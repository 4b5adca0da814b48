package daemon

import (
	"errors"

	"github.com/conntrackgo/conntrackgo/pkg/confparse"
)

// checkSupported refuses what the grammar knows and the daemon does not do, so
// that nobody runs a firewall pair that is not in step without knowing.
func checkSupported(cfg *confparse.Config) error {
	if cfg.Stats {
		return errors.New("Stats mode is not supported: conntrackgo only synchronises; to log flows run `conntrack -E` or ulogd2 with its NFCT input")
	}
	return nil
}
