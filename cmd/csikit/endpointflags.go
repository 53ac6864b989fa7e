package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/csikit/csikit/csidriver"
	"github.com/csikit/csikit/internal/csiclient"
)

// endpointFlags are those of the commands that talk to a running driver.
type endpointFlags struct {
	set                *flag.FlagSet
	endpoint, node     string
	access, secretFile string
	size               int64
	dir                string
	timeout            time.Duration // 0: the command's own

	block                        bool
	parameters, mutable, secrets map[string]string
}

func newEndpointFlags(command string) *endpointFlags {
	f := &endpointFlags{set: flag.NewFlagSet(command, flag.ContinueOnError)}
	f.set.SetOutput(io.Discard)
	f.set.StringVar(&f.endpoint, "endpoint", os.Getenv(csidriver.EndpointEnv), "")
	f.set.StringVar(&f.node, "node-endpoint", "", "")
	f.set.StringVar(&f.access, "access", "mount", "")
	f.set.Func("parameters", "", func(s string) (err error) { f.parameters, err = pairs(s); return err })
	f.set.Func("mutable-parameters", "", func(s string) (err error) { f.mutable, err = pairs(s); return err })
	f.set.StringVar(&f.secretFile, "secrets", "", "")
	f.size = 1 << 30
	f.set.Func("size", "", func(s string) (err error) {
		if f.size, err = strconv.ParseInt(s, 10, 64); err != nil {
			return fmt.Errorf("%q is no number of bytes", s)
		}
		return nil
	})
	f.set.StringVar(&f.dir, "dir", "", "")
	f.set.DurationVar(&f.timeout, "timeout", 0, "")
	return f
}

// parse checks the arguments and reads the file of secrets.
func (f *endpointFlags) parse(args []string) error {
	if err := f.set.Parse(args); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if f.set.NArg() > 0 {
		return fmt.Errorf("%w: unknown argument %q", errUsage, f.set.Arg(0))
	}
	if f.endpoint == "" {
		return fmt.Errorf("%w: no -endpoint", errUsage)
	}
	if f.access != "mount" && f.access != "block" {
		return fmt.Errorf("%w: -access %q is neither mount nor block", errUsage, f.access)
	}
	if f.size < 0 || f.timeout < 0 {
		return fmt.Errorf("%w: -size %d, -timeout %v", errUsage, f.size, f.timeout)
	}
	f.block = f.access == "block"
	for _, e := range []*string{&f.endpoint, &f.node} {
		target, err := csiclient.Target(*e)
		if err != nil {
			return fmt.Errorf("%w: %w", errUsage, err)
		}
		*e = target
	}
	if err := f.readSecrets(); err != nil {
		return fmt.Errorf("%w: -secrets: %w", errUsage, err)
	}
	return nil
}

// readSecrets reads a JSON object of strings: on a command line anybody could
// read them.
func (f *endpointFlags) readSecrets() error {
	if f.secretFile == "" {
		return nil
	}
	b, err := os.ReadFile(f.secretFile)
	if err != nil {
		return err
	}
	if json.Unmarshal(b, &f.secrets) != nil { // its error may quote the file
		return fmt.Errorf("%s: not a JSON object of strings", f.secretFile)
	}
	return nil
}

// pairs reads k=v,k=v. A value may hold = and no comma.
func pairs(s string) (map[string]string, error) {
	m := map[string]string{}
	if s == "" {
		return m, nil
	}
	for p := range strings.SplitSeq(s, ",") {
		k, v, ok := strings.Cut(p, "=")
		if !ok || k == "" {
			return nil, fmt.Errorf("%q is not key=value", p)
		}
		if _, twice := m[k]; twice {
			return nil, errors.New("key " + k + " is there twice")
		}
		m[k] = v
	}
	return m, nil
}

// joinPairs is what pairs reads.
func joinPairs(m map[string]string) string {
	var list []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		list = append(list, k+"="+m[k])
	}
	return strings.Join(list, ",")
}
