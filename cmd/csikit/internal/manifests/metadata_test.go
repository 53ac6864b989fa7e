package manifests

import (
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
)

// TestMetadata: the sidecar of backup programs is there when it is asked for, by name
// of its certificate, and refused where it could not serve.
func TestMetadata(t *testing.T) {
	o := Options{Image: "mem", Namespace: "default", MetadataTLS: "tls", MetadataCA: []byte(certificate)}
	for _, single := range []bool{false, true} {
		o.SingleNode = single
		_, kinds := write(t, memory(t), o)
		workload, other := "Deployment", "DaemonSet"
		if single {
			workload, other = other, workload
		}
		c := containers(t, kinds[workload][0])["csi-snapshot-metadata"]
		if c == nil || slices.Contains(c["args"].([]any), any("--leader-election")) {
			t.Errorf("single node %v: %v", single, c)
		}
		for _, w := range kinds[other] {
			if containers(t, w)["csi-snapshot-metadata"] != nil {
				t.Errorf("single node %v: a second one", single)
			}
		}
		selector := at(t, kinds["Service"][0], "spec", "selector")
		if labels := at(t, kinds[workload][0], "spec", "template", "metadata", "labels"); !maps.Equal(selector.(map[string]any), labels.(map[string]any)) {
			t.Errorf("the Service selects %v, and pods have %v", selector, labels)
		}
		address := at(t, kinds["SnapshotMetadataService"][0], "spec", "address")
		if want := at(t, kinds["Service"][0], "metadata", "name").(string) + ".default:50051"; address != want {
			t.Errorf("programs are told %v, want %s", address, want)
		}
	}
	for _, tt := range []struct {
		f    *Facts
		o    Options
		want []string
	}{
		{loop(t), Options{MetadataTLS: "tls"}, []string{"which node", "PEM"}},
		{memory(t, "ChangedBlockTracker"), Options{MetadataTLS: "tls", MetadataCA: []byte("x")}, []string{"does not say", "PEM"}},
		{memory(t), Options{MetadataCA: []byte(certificate)}, []string{"no secret"}},
	} {
		tt.o.Image, tt.o.Namespace = "x", "default"
		err := Write(io.Discard, tt.f, tt.o)
		for _, want := range tt.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v does not say %q", err, want)
			}
		}
	}
	f := memory(t)
	f.Name = "1." + strings.Repeat("a", 58) + ".io"
	if err := Write(io.Discard, f, o); err == nil || !strings.Contains(err.Error(), "no name of a Service") {
		t.Errorf("a name that no Service can have: %v", err)
	}
}
