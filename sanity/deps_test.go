package sanity

import (
	"testing"

	"github.com/csikit/csikit/internal/deptest"
)

func TestDependencies(t *testing.T) {
	deptest.Never(t, map[string]string{
		"k8s.io/client-go":                           "a conformance test needs no cluster",
		"k8s.io/kubernetes":                          "a conformance test needs no cluster",
		"go.opentelemetry.io/otel/sdk":               "no exporter in a test of somebody's driver",
		"github.com/csikit/csikit/cmd":               "commands use this package, not the other way round",
		"github.com/csikit/csikit/backends/loopfile": "it tests any driver and knows none",
	})
}
