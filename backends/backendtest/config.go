package backendtest

import (
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/csikit/csikit/backends"
)

// Backend is what is tested. Controller or Node may be nil, and what needs them
// is then skipped.
type Backend struct {
	Controller backends.Controller
	Node       backends.Node
	Traits     backends.Traits
	NodeID     string // of the node on which Node runs, for an Attacher
	OtherNode  string // another node to which volumes can be attached; "": none
}

// Content reaches the bytes of a volume as its user would. Data that was written
// must be seen by the next snapshot.
type Content interface {
	WriteAt(volumeID string, p []byte, off int64) error
	ReadAt(volumeID string, p []byte, off int64) error
}

// Config says what to test. New is required.
type Config struct {
	// New makes a backend on storage of its own, with nothing in it. What is to be
	// closed at the end is for t.Cleanup.
	New func(t testing.TB) Backend
	// Reopen opens the storage of b again, as a new process of the driver does
	// when the old one was killed; b is not used any more.
	Reopen func(t testing.TB, b Backend) Backend

	// Size of the volumes; 0: the least that Traits allows.
	Size int64
	// Capability with which volumes are made; its Mode 0: the first that Traits
	// allows.
	Capability backends.Capability
	// Parameters and Secrets are sent with every request that takes some.
	Parameters map[string]string
	Secrets    map[string]string
	// Mutable are two patches for ModifyVolume with different keys. nil: made of
	// Traits.Parameters, where those have values.
	Mutable []map[string]string
	// Ephemeral are the parameters of ephemeral volumes.
	Ephemeral map[string]string
	// Content gives the means to compare data; nil: data is not compared.
	Content func(b Backend) Content
}

func (c *Config) check() error {
	if c.New == nil {
		return errors.New("backendtest: Config.New is nil")
	}
	return nil
}

// size of the volumes of the suite.
func (c *Config) size(t *backends.Traits) int64 {
	size := c.Size
	if size == 0 && t.SizeDefault > 0 {
		size = roundUp(max(t.SizeMin, 1<<20), t.SizeStep)
	}
	if t.SizeMax > 0 {
		size = min(size, t.SizeMax)
	}
	return size
}

func roundUp(n, step int64) int64 {
	if step <= 1 {
		return n
	}
	return (n + step - 1) / step * step
}

// capability of the volumes of the suite.
func (c *Config) capability(t *backends.Traits) backends.Capability {
	if c.Capability.Mode != 0 {
		return c.Capability
	}
	have := backends.Capability{Block: !t.Filesystem}
	if len(t.Modes) > 0 {
		have.Mode = t.Modes[0]
	}
	if !have.Block && len(t.FSTypes) > 0 {
		have.FSType = t.FSTypes[0]
	}
	return have
}

// parameters are those of the config and the defaults, as csidriver sends them.
func (c *Config) parameters(t *backends.Traits) map[string]string {
	params := make(map[string]string)
	for _, p := range t.Parameters {
		if p.Default != "" {
			params[p.Name] = p.Default
		}
	}
	maps.Copy(params, c.Parameters)
	return params
}

// patches are two changes of different mutable parameters; nil: none are known.
func (c *Config) patches(t *backends.Traits) []map[string]string {
	if c.Mutable != nil {
		return c.Mutable
	}
	var patches []map[string]string
	for _, p := range t.Parameters {
		// A value that a new volume does not have anyhow.
		i := slices.IndexFunc(p.Values, func(v string) bool { return v != p.Default })
		if p.Mutable && i >= 0 {
			patches = append(patches, map[string]string{p.Name: p.Values[i]})
		}
	}
	return patches
}

// canary is sent as a secret where Config has none.
const canary = "canary-4f1c9d-of-backendtest"

func (c *Config) secrets() backends.Secrets {
	if len(c.Secrets) > 0 {
		return backends.NewSecrets(c.Secrets)
	}
	return backends.NewSecrets(map[string]string{"canary": canary})
}
