package csidriver

import (
	"testing"

	"google.golang.org/protobuf/proto"
)

// BenchmarkRPC is a request through all of csikit but the network and the work:
// decoding, the chain, validation, conversion, the operation.
func BenchmarkRPC(b *testing.B) {
	publish := publishReq("v", "/var/lib/kubelet/plugins/x/globalmount", "/var/lib/kubelet/pods/y/mount")
	publish.VolumeContext = map[string]string{"pool": "a", "csi.storage.k8s.io/pod.name": "web"}
	publish.Secrets = map[string]string{"key": "canary"}
	for name, req := range map[string]proto.Message{"NodePublishVolume": publish, "CreateVolume": createReq("v")} {
		b.Run(name, func(b *testing.B) {
			c, _, _ := fuzzDriver(b, nil)
			data, err := proto.Marshal(req)
			if err != nil {
				b.Fatal(err)
			}
			for _, m := range c.methods {
				if m.name != name {
					continue
				}
				b.ReportAllocs()
				for b.Loop() {
					if _, err := c.call(b.Context(), m, data); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
	b.Run("validate", func(b *testing.B) {
		v := newValidator()
		b.ReportAllocs()
		for b.Loop() {
			if err := v.check(publish); err != nil {
				b.Fatal(err)
			}
		}
	})
}
