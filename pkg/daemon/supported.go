package daemon

import (
	"errors"
	"fmt"

	"github.com/conntrackgo/conntrackgo/pkg/confparse"
)

// checkSupported refuses what the grammar knows and the daemon does not do, so
// that nobody runs a firewall pair that is not in step without knowing.
func checkSupported(cfg *confparse.Config) error {
	if cfg.Stats {
		return errors.New("Stats mode is not supported: conntrackgo only synchronises; to log flows run `conntrack -E` or ulogd2 with its NFCT input")
	}
	if !cfg.Sync {
		return nil
	}
	refuse := func(what, instead string) error {
		return fmt.Errorf("%s is not supported: %s", what, instead)
	}
	switch {
	case len(cfg.Links) > 1:
		return refuse("more than one link", "keep the one marked Default, on a bonded interface if it must be redundant")
	}
	return nil
}
