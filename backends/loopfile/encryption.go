package loopfile

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/csikit/csikit/backends"
)

// paramEncrypted asks for a volume whose image holds LUKS; the engine makes it.
const paramEncrypted = "encrypted"

// The node-stage secrets of an encrypted volume.
const (
	secretKey         = "encryptionKey"
	secretPreviousKey = "previousEncryptionKey"
)

// luksHeader is what the header takes.
const luksHeader = 16 << 20

func (m *meta) encrypted() bool { return m.Parameters[paramEncrypted] == "true" }

// encryption is what the engine is told of an encrypted volume; nil: it is none.
func (m *meta) encryption(s backends.Secrets) (*backends.Encryption, error) {
	if !m.encrypted() {
		return nil, nil
	}
	key, _ := s.Lookup(secretKey)
	if key == "" {
		return nil, fmt.Errorf("%w: volume %s is encrypted, and the node-stage secrets have no %s", backends.ErrUnauthenticated, m.ID, secretKey)
	}
	previous, _ := s.Lookup(secretPreviousKey)
	return &backends.Encryption{Key: backends.NewSecret(key), PreviousKey: backends.NewSecret(previous)}, nil
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
		return fmt.Errorf("%w: parameter %s is %v, and of the source it is %v", backends.ErrInvalid, paramEncrypted, m.encrypted(), is)
	}
	return nil
}
