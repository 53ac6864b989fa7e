package lvm

import (
	"testing"

	"github.com/csikit/csikit/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }
