package loopfile

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/internal/luks"
)

func (m *meta) encrypted() bool { return m.Parameters[luks.Param] == "true" }

// encryption is what the engine is told of an encrypted volume; nil: it is none.
func (m *meta) encryption(s backends.Secrets) (*backends.Encryption, error) {
	if !m.encrypted() {
		return nil, nil
	}
	return luks.Encryption(m.ID, s)
}

// sameEncryption refuses a copy that is to be encrypted and would not be, or the
// other way round: what the image holds stays as it is.
func sameEncryption(img *os.File, m *meta) error {
	b := make([]byte, 6)
	if _, err := img.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	is := string(b) == "LUKS\xba\xbe"
	if is != m.encrypted() && (is || m.format() == backends.FormatDone) {
		return fmt.Errorf("%w: parameter %s is %v, and of the source it is %v", backends.ErrInvalid, luks.Param, m.encrypted(), is)
	}
	return nil
}
