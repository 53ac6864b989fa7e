package backends

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"text/template"
)

const canary = "CANARY"

// leaks tells whether the text has the canary in any spelling that printing
// gives: plain, hex in both cases, decimal bytes, base64.
func leaks(text string) bool {
	for _, spelling := range []string{
		canary,
		fmt.Sprintf("%x", canary), fmt.Sprintf("%X", canary), fmt.Sprintf("% x", canary),
		strings.Trim(fmt.Sprintf("%d", []byte(canary)), "[]"),
		"Q0FOQVJZ",
	} {
		if strings.Contains(text, spelling) {
			return true
		}
	}
	return false
}

// bearers are all ways in which the SDK and its users hold secrets.
func bearers() map[string]any {
	secrets := NewSecrets(map[string]string{"password": canary})
	secret := NewSecret(canary)
	flags := NewFlags("ro", "password="+canary)
	create := CreateVolumeRequest{
		Name: "pvc-1", Secrets: secrets, Owner: Owner{Tokens: secret},
		Capabilities: []Capability{{Flags: flags}},
	}
	type hiding struct {
		secrets Secrets
		secret  Secret
		flags   Flags
		req     CreateVolumeRequest
		ptr     *CreateVolumeRequest
		any     any
	}
	mount := Mount{Source: "srv:/e", Env: secrets, Files: map[string]Secret{"key": secret}}
	return map[string]any{
		"secrets":           secrets,
		"secret":            secret,
		"flags":             flags,
		"pointer":           &secrets,
		"pointer to secret": &secret,
		"pointer to flags":  &flags,
		"request":           create,
		"request pointer":   &create,
		"capability":        create.Capabilities[0],
		"owner":             create.Owner,
		"mount":             mount,
		"source":            &Source{Mount: &mount},
		"unexported fields": hiding{secrets, secret, flags, create, &create, secrets},
		"pointer to those":  &hiding{secrets, secret, flags, create, &create, &secret},
		"map":               map[string]Secrets{"a": secrets},
		"map of any":        map[string]any{"a": secret, "b": flags},
		"slice":             []Secret{secret},
		"slice of pointers": []*Secrets{&secrets},
		"array":             [1]Flags{flags},
		"any slice":         []any{create, &create, secret},
		"error":             fmt.Errorf("create: %w: %v %+v", ErrFailed, create, secrets),
		"joined error":      errors.Join(fmt.Errorf("%#v", create), fmt.Errorf("%q", flags)),
	}
}

func TestPrintingShowsNoSecret(t *testing.T) {
	for name, v := range bearers() {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x", "%X", "% x", "%q", "%c", "%U", "%t", "%e", "%p", "%o", "%b", "%T", "%10.3v", "%w", "%!"} {
			if got := fmt.Sprintf(verb, v); leaks(got) {
				t.Errorf("%s, %s: %s", name, verb, got)
			}
		}
		if got := fmt.Sprintln(v); leaks(got) {
			t.Errorf("%s, Sprintln: %s", name, got)
		}
	}
}

// Encoders may refuse; what they have written until then counts.
func TestEncodersShowNoSecret(t *testing.T) {
	encoders := map[string]func(*bytes.Buffer, any) error{
		"json": func(b *bytes.Buffer, v any) error { return json.NewEncoder(b).Encode(v) },
		"xml":  func(b *bytes.Buffer, v any) error { return xml.NewEncoder(b).Encode(v) },
		"gob":  func(b *bytes.Buffer, v any) error { return gob.NewEncoder(b).Encode(v) },
		"template": func(b *bytes.Buffer, v any) error {
			return template.Must(template.New("").Parse(`{{.}} {{printf "%#v %x" . .}} {{js .}}`)).Execute(b, v)
		},
	}
	for name, v := range bearers() {
		for kind, encode := range encoders {
			var b bytes.Buffer
			err := encode(&b, v)
			if leaks(b.String()) || leaks(fmt.Sprint(err)) {
				t.Errorf("%s, %s: %s, %v", name, kind, &b, err)
			}
		}
	}
}

func TestLogsShowNoSecret(t *testing.T) {
	handlers := map[string]func(*bytes.Buffer) slog.Handler{
		"text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
		"json": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
	}
	for name, v := range bearers() {
		for kind, make := range handlers {
			var b bytes.Buffer
			log := slog.New(make(&b)).With("with", v)
			log.Info("m", "v", v, slog.Group("g", "v", v))
			log.WithGroup("h").Error("m", "v", []any{v}, "text", fmt.Sprint(v))
			if leaks(b.String()) {
				t.Errorf("%s, %s: %s", name, kind, &b)
			}
			if b.Len() == 0 {
				t.Errorf("%s, %s: nothing logged", name, kind)
			}
		}
	}
}

// A panic that nobody recovers prints its value by the runtime, not by fmt.
func TestPanicShowsNoSecret(t *testing.T) {
	const env = "BACKENDS_TEST_PANIC"
	if name := os.Getenv(env); name != "" {
		panic(bearers()[name])
	}
	for _, name := range []string{"secret", "flags", "request", "request pointer", "error"} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestPanicShowsNoSecret$")
		cmd.Env = append(os.Environ(), env+"="+name)
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "panic: ") {
			t.Errorf("%s: no panic: %v\n%s", name, err, out)
		}
		if leaks(string(out)) {
			t.Errorf("%s: %s", name, out)
		}
	}
}

// The tests above are worth nothing if leaks cannot find a canary.
func TestLeaksFinds(t *testing.T) {
	type plain map[string]string
	v := struct{ p plain }{plain{"k": canary}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%X", "%d", "%s", "%q"} {
		if got := fmt.Sprintf(verb, v); !leaks(got) {
			t.Errorf("%s not found in %s", verb, got)
		}
	}
	j, err := json.Marshal(map[string][]byte{"k": []byte(canary)})
	if err != nil || !leaks(string(j)) {
		t.Errorf("not found in %s", j)
	}
	if got := fmt.Sprintf("%d", []byte(canary)); !leaks(got) {
		t.Errorf("not found in %s", got)
	}
}

func TestRedactedForms(t *testing.T) {
	s := NewSecrets(map[string]string{"k": canary})
	for _, got := range []string{fmt.Sprint(s), fmt.Sprintf("%x", s), s.String(), fmt.Sprintf("%#v", Secrets{})} {
		if got != redacted {
			t.Errorf("got %q", got)
		}
	}
	j, err := json.Marshal(map[string]any{"secrets": s})
	if want := `{"secrets":"[redacted]"}`; err != nil || string(j) != want {
		t.Errorf("got %s, %v", j, err)
	}
}

func TestReveal(t *testing.T) {
	in := map[string]string{"b": "2", "a": "1"}
	s := NewSecrets(in)
	in["a"] = "changed"
	if v, ok := s.Lookup("a"); v != "1" || !ok {
		t.Errorf("Lookup(a) = %q, %v", v, ok)
	}
	if v, ok := s.Lookup("c"); v != "" || ok {
		t.Errorf("Lookup(c) = %q, %v", v, ok)
	}
	if got := s.Keys(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("Keys() = %q", got)
	}
	if got := NewSecret("x").Reveal(); got != "x" {
		t.Errorf("Reveal() = %q", got)
	}
	opts := []string{"ro", "context=x"}
	f := NewFlags(opts...)
	opts[0] = "changed"
	got := f.Reveal()
	if !slices.Equal(got, []string{"ro", "context=x"}) {
		t.Errorf("Reveal() = %q", got)
	}
	got[0] = "changed"
	if f.Reveal()[0] != "ro" {
		t.Error("Reveal gives its own slice away")
	}
}

func TestZeroSecrets(t *testing.T) {
	var s Secrets
	if _, ok := s.Lookup("a"); ok || s.Keys() != nil || NewSecrets(nil).Keys() != nil {
		t.Error("zero Secrets are not empty")
	}
	if (Secret{}).Reveal() != "" || (Flags{}).Reveal() != nil || NewFlags().Reveal() != nil {
		t.Error("zero Secret or Flags are not empty")
	}
}
