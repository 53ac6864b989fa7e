package lvm

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/backendtest"
)

// fakeContent reaches the bytes of a fakeVG's volumes.
type fakeContent struct {
	f *fakeVG
	b *Backend
}

func (c fakeContent) lv(id string) (*fakeLV, error) {
	for _, l := range c.f.lvs {
		if m, err := decodeTags(c.b.o.Driver, l.tags); err == nil && makeID(m.Class, nameOf(m.Kind, m.Name)) == id {
			return l, nil
		}
	}
	return nil, errors.New("no volume " + id)
}

func (c fakeContent) WriteAt(id string, p []byte, off int64) error {
	c.f.mu.Lock() // what a start has begun goes on beside
	defer c.f.mu.Unlock()
	l, err := c.lv(id)
	if err != nil {
		return err
	}
	if n := off + int64(len(p)) - int64(len(l.bytes)); n > 0 {
		l.bytes = append(l.bytes, make([]byte, n)...)
	}
	copy(l.bytes[off:], p)
	// Nobody writes to a volume that was never open.
	if !slices.ContainsFunc(l.tags, func(t string) bool { return strings.HasPrefix(t, tagFormat) }) {
		l.tags = append(l.tags, tagFormat+formatRaw)
	}
	return nil
}

func (c fakeContent) ReadAt(id string, p []byte, off int64) error {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	l, err := c.lv(id)
	if err != nil {
		return err
	}
	clear(p)
	if off < int64(len(l.bytes)) {
		copy(p, l.bytes[off:])
	}
	return nil
}

func fakeSuite(class string) backendtest.Config {
	fakes := map[*Backend]*fakeVG{}
	begin := func(t testing.TB, f *fakeVG) backendtest.Backend {
		b := onFake(t, f, optionsFor(class))
		fakes[b] = f
		return backendtest.Backend{Controller: b, Node: b, Traits: b.Traits(), NodeID: "node-1"}
	}
	return backendtest.Config{
		New: func(t testing.TB) backendtest.Backend { return begin(t, newFake()) },
		Reopen: func(t testing.TB, b backendtest.Backend) backendtest.Backend {
			old := b.Controller.(*Backend)
			_ = old.Close()
			return begin(t, fakes[old])
		},
		Parameters: map[string]string{paramClass: class},
		Capability: backends.Capability{Mode: backends.SingleNodeWriter, FSType: "ext4"},
		Content: func(b backendtest.Backend) backendtest.Content {
			return fakeContent{fakes[b.Controller.(*Backend)], b.Controller.(*Backend)}
		},
	}
}

// The whole suite, with every name and every ID, over an lvm that costs nothing.
func TestSuite(t *testing.T) {
	for _, class := range []string{"linear", "thin"} {
		t.Run(class, func(t *testing.T) { backendtest.Run(t, fakeSuite(class)) })
	}
}
