//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package journal

import (
	"errors"
	"os"
)

// lockFile refuses: without a lock two processes would take each other's intents.
func lockFile(*os.File) error { return errors.ErrUnsupported }
