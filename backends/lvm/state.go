package lvm

import (
	"encoding/json"
	"fmt"

	"github.com/csikit/csikit/backends"
)

const stateVersion = 1

// state is Source.State: which LV was opened. Its UUID says so, whatever the VG and
// the LV are called by now.
type state struct {
	Version int    `json:"version"`
	DM      string `json:"dm"` // UUID of the device-mapper device
	Path    string `json:"path"`
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
