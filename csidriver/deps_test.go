package csidriver

import (
	"testing"

	"github.com/csikit/csikit/internal/deptest"
)

func TestDependencies(t *testing.T) {
	deptest.Never(t, map[string]string{
		"k8s.io/client-go":                   "a driver must not carry a Kubernetes client",
		"k8s.io/kubernetes":                  "not importable, and 40 MB",
		"k8s.io/mount-utils":                 "mounter/kmount is for old code; it brings klog, and a FormatAndMount that formats what cannot be read",
		"k8s.io/api":                         "csikit speaks CSI; what Kubernetes asks besides is text",
		"github.com/kubernetes-csi":          "csi-test is for tests, csi-lib-utils for sidecars",
		"go.opentelemetry.io/otel/sdk":       "the API packages only; the SDK is the driver author's choice",
		"go.opentelemetry.io/auto":           "comes with otel's global providers; they are given, not looked for",
		"go.opentelemetry.io/contrib":        "2.5 microseconds an RPC, switched off",
		"go.opentelemetry.io/otel/exporters": "the driver author's choice",
		"github.com/onsi":                    "comes with csi-test",
		"github.com/csikit/csikit/sanity":    "nothing that a driver links imports the harness",
		"testing":                            "tests stay in tests",
	})
}
