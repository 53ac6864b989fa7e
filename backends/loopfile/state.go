package loopfile

import (
	"encoding/json"
	"fmt"

	"github.com/csikit/csikit/backends"
)

const stateVersion = 1

// state is Source.State: where a volume was attached. The file's numbers and the
// disk sequence number say which attachment it was, whatever the name of the
// loop device means by now.
type state struct {
	Version int    `json:"version"`
	Loop    string `json:"loop"` // "/dev/loop7"
	DiskSeq uint64 `json:"diskSeq"`
	Dev     uint64 `json:"dev"`
	Ino     uint64 `json:"ino"`
}

func (s *state) encode() ([]byte, error) { return json.Marshal(s) }

// decodeState is nil for a state that was lost.
func decodeState(b []byte) (*state, error) {
	if len(b) == 0 {
		return nil, nil
	}
	var s state
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("%w: volume state %q: %w", backends.ErrUnavailable, b, err)
	}
	if s.Version != stateVersion {
		return nil, fmt.Errorf("%w: volume state has version %d, this driver knows %d", backends.ErrPrecondition, s.Version, stateVersion)
	}
	return &s, nil
}
