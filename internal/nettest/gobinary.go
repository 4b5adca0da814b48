package nettest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// ErrNoBinary is wrapped when our daemon can't be built from this checkout.
var ErrNoBinary = errors.New("conntrackgo does not build")

const buildTimeout = 3 * time.Minute

// GoBinary is the path of our daemon: CONNTRACKGO_BIN if set, else the result
// of one "go build" per process. Call RemoveGoBinary at the end.
func GoBinary() (string, error) {
	if p := os.Getenv("CONNTRACKGO_BIN"); p != "" {
		return p, nil
	}
	return buildOnce()
}

var builtDir string

var buildOnce = sync.OnceValues(func() (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoBinary, err)
	}
	if builtDir, err = os.MkdirTemp("", "conntrackgo-"); err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoBinary, err)
	}
	path := filepath.Join(builtDir, "conntrackgo")
	ctx, cancel := context.WithTimeout(context.Background(), buildTimeout)
	defer cancel()
	args := []string{"-C", root, "build", "-o", path}
	if _, err := runHost(ctx, "go", append(args, "./cmd/conntrackgo")...); err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoBinary, err)
	}
	return path, nil
})

// RemoveGoBinary removes what GoBinary built; it can't be used afterwards.
func RemoveGoBinary() {
	if builtDir != "" {
		_ = os.RemoveAll(builtDir)
	}
}

// moduleRoot finds the directory of go.mod above the working directory.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod above the working directory")
		}
		dir = parent
	}
}
