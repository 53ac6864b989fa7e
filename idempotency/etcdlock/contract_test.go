package etcdlock

import (
	"bytes"
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"io/fs"
	"os/exec"
	"strings"
	"testing"
)

// The contracts are idempotency.Locker and SharedLocker, word for word: this module
// does not import csikit's.
type contract interface {
	Lock(ctx context.Context, key string) (Lease, error)
}

type sharedContract interface {
	LockShared(ctx context.Context, key string) (Lease, error)
}

var (
	_ contract       = (*Locker)(nil)
	_ sharedContract = (*Locker)(nil)
)

// What is implemented here is what idempotency has, in the same repository.
func TestContract(t *testing.T) {
	theirs, err := declarations("../locker.go")
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("missing: package idempotency beside this one")
	}
	if err != nil {
		t.Fatal(err)
	}
	locker, err := declarations("contract_test.go")
	if err != nil {
		t.Fatal(err)
	}
	lease, err := declarations("locker.go")
	if err != nil {
		t.Fatal(err)
	}
	for name, here := range map[string]string{"Locker": "contract", "SharedLocker": "sharedContract"} {
		if a, b := theirs[name], locker[here]; a == "" || a != b {
			t.Errorf("idempotency has\n%s\nand here is\n%s", a, b)
		}
	}
	if a, b := theirs["Lease"], lease["Lease"]; !strings.HasPrefix(a, "= interface") || a != b {
		t.Errorf("idempotency has\n%s\nand here is\n%s", a, b)
	}
}

// declarations gives the types of a file without their comments.
func declarations(file string) (map[string]string, error) {
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, file, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	all := make(map[string]string)
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, s := range g.Specs {
			ts, ok := s.(*ast.TypeSpec)
			if !ok {
				continue
			}
			var b bytes.Buffer
			if ts.Assign.IsValid() {
				b.WriteString("= ")
			}
			if err := printer.Fprint(&b, token.NewFileSet(), ts.Type); err != nil {
				return nil, err
			}
			all[ts.Name.Name] = b.String()
		}
	}
	return all, nil
}

// Only what etcd's client needs comes with it.
func TestDependencies(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-tags", "grpcnotrace", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for p := range strings.Lines(string(out)) {
		p = strings.TrimSpace(p)
		for _, never := range []string{"k8s.io/", "go.opentelemetry.io/otel/sdk", "text/template", "go.etcd.io/etcd/server"} {
			if strings.HasPrefix(p, never) {
				t.Errorf("depends on %s", p)
			}
		}
		if strings.HasPrefix(p, "github.com/csikit/csikit") && p != "github.com/csikit/csikit/idempotency/etcdlock" {
			t.Errorf("depends on %s, which has no release that go.mod could name", p)
		}
	}
}
