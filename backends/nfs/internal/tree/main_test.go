package tree

import (
	"testing"

	"github.com/csikit/csikit/internal/deptest"
	"github.com/csikit/csikit/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestDependencies(t *testing.T) {
	deptest.Only(t, map[string]string{
		"github.com/csikit/csikit/internal/sparse": "reflinks and holes",
		"golang.org/x/sys":                         "openat2, copy_file_range, extended attributes",
	})
}
