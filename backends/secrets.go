package backends

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
)

// redacted is what every attempt to print a secret shows.
const redacted = "[redacted]"

// hidden gives a type the answers that printing asks for. The values live in a
// closure and not in a field, so that not even reflection on an unexported field
// of a request reaches them.
type hidden struct{}

func (hidden) Format(f fmt.State, _ rune)   { _, _ = fmt.Fprint(f, redacted) }
func (hidden) String() string               { return redacted }
func (hidden) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
func (hidden) MarshalText() ([]byte, error) { return []byte(redacted), nil }
func (hidden) LogValue() slog.Value         { return slog.StringValue(redacted) }

// Secret is one hidden value. The zero value is empty.
type Secret struct {
	hidden
	get func() string
}

// NewSecret hides v.
func NewSecret(v string) Secret { return Secret{get: func() string { return v }} }

// Reveal gives the value.
func (s Secret) Reveal() string {
	if s.get == nil {
		return ""
	}
	return s.get()
}

// Secrets are hidden values by name. The zero value is empty.
type Secrets struct {
	hidden
	get func() map[string]string
}

// NewSecrets hides a copy of m.
func NewSecrets(m map[string]string) Secrets {
	if len(m) == 0 {
		return Secrets{}
	}
	c := maps.Clone(m)
	return Secrets{get: func() map[string]string { return c }}
}

// Lookup reveals one value.
func (s Secrets) Lookup(key string) (value string, ok bool) {
	if s.get == nil {
		return "", false
	}
	value, ok = s.get()[key]
	return value, ok
}

// Keys lists the names in order; they are no secret.
func (s Secrets) Keys() []string {
	if s.get == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(s.get()))
}

// Flags are mount options as the CO gave them; hidden like Secrets, for CSI says
// that they may hold some.
type Flags struct {
	hidden
	get func() []string
}

// NewFlags hides a copy of flags.
func NewFlags(flags ...string) Flags {
	if len(flags) == 0 {
		return Flags{}
	}
	c := slices.Clone(flags)
	return Flags{get: func() []string { return slices.Clone(c) }}
}

// Reveal gives the options, for mount(2) or a helper.
func (f Flags) Reveal() []string {
	if f.get == nil {
		return nil
	}
	return f.get()
}
