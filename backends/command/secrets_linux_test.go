package command

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/csikit/csikit/backends"
)

// Promise 6: a secret is in the environment, in the input and in a file, and
// the tool prints all that it has. Nothing of it may show.
func TestSecretsDoNotShow(t *testing.T) {
	const inEnv, inStdin, inFile = "canary-env-7f3a", "canary-stdin-7f3a", "canary-file-7f3a"
	tool := script(t, `
tr '\0' ' ' </proc/$$/cmdline >"$OUT.cmdline"
read typed
file=$(cat "$2")
printf '%s,%s,%s' "$PASS" "$typed" "$file" >"$OUT.seen"
echo "rejected: $PASS ($typed) $file" >&2
exit 1`)
	out := filepath.Join(t.TempDir(), "out")
	var log bytes.Buffer
	var events []Event
	r := New(&Options{
		Logger:   slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Observer: func(e Event) { events = append(events, e) },
	})
	act := &recorder{}
	_, err := r.Run(backends.WithActivity(t.Context(), act), Cmd{
		Path:  tool,
		Args:  []string{"--key-file", "{file:key}", "-o", "ro,password=hunter2-7f3a"},
		Vars:  map[string]string{"OUT": out},
		Env:   backends.NewSecrets(map[string]string{"PASS": inEnv}),
		Stdin: strings.NewReader(inStdin + "\n"),
		Files: map[string]backends.Secret{"key": backends.NewSecret(inFile + "\n")},
	})
	var exit *ExitError
	if !errors.As(err, &exit) {
		t.Fatal(err)
	}
	seen, _ := os.ReadFile(out + ".seen")
	if want := inEnv + "," + inStdin + "," + inFile; string(seen) != want {
		t.Errorf("the tool saw %q, want %q", seen, want)
	}
	cmdline, _ := os.ReadFile(out + ".cmdline")
	if !strings.Contains(string(cmdline), "--key-file /proc/self/fd/3") {
		t.Errorf("command line %q", cmdline)
	}
	if !strings.Contains(log.String(), "--key-file {file:key}") || !strings.Contains(exit.Stderr, "rejected: [redacted] ([redacted]) [redacted]") {
		t.Errorf("log %s\nstderr %s", log.String(), exit.Stderr)
	}
	for name, text := range map[string]string{
		"log": log.String(), "error": err.Error(), "error fields": strings.Join([]string{exit.Argv, exit.Stderr}, " "),
		"event": events[0].Err.Error(), "step": strings.Join(act.steps, " "),
	} {
		if strings.Contains(text, "7f3a") {
			t.Errorf("secret in the %s: %s", name, text)
		}
	}
	if strings.Contains(string(cmdline), "canary") {
		t.Errorf("secret in the command line: %s", cmdline)
	}
}
