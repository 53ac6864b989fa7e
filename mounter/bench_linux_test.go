package mounter_test

import (
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
)

// BenchmarkStage is a fresh stage and a repeated one of each type; attaching the
// loop device is not counted.
func BenchmarkStage(b *testing.B) {
	for _, fsType := range []string{"ext4", "xfs"} {
		for _, fresh := range []bool{true, false} {
			b.Run(fsType+"/fresh="+strconv.FormatBool(fresh), func(b *testing.B) {
				n := newLoopNode(b)
				r := newRealRig(b, n, n)
				if !fresh {
					n.make("v", 1024*mib)
					r.stage("v", fsType)
					r.unstage("v")
				}
				i := 0
				for b.Loop() {
					b.StopTimer()
					id := "v"
					if fresh {
						i++
						id = strconv.Itoa(i)
						n.make(id, 1024*mib)
					}
					if _, err := n.OpenVolume(b.Context(), backends.OpenVolumeRequest{ID: id}); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
					r.stage(id, fsType)
					b.StopTimer()
					r.unstage(id)
					b.StartTimer()
				}
			})
		}
	}
}

func BenchmarkPublish(b *testing.B) {
	n := newLoopNode(b)
	r := newRealRig(b, n, n)
	n.make("v", 64*mib)
	r.stage("v", "ext4")
	b.Run("publish+unpublish", func(b *testing.B) {
		for b.Loop() {
			r.publish("v", "t")
			r.unpublish("v", "t")
		}
	})
	r.publish("v", "t")
	b.Run("publish again", func(b *testing.B) {
		for b.Loop() {
			r.publish("v", "t")
		}
	})
	b.Run("stats", func(b *testing.B) {
		for b.Loop() {
			if _, err := r.Stats(b.Context(), mounter.StatsRequest{ID: "v", Path: r.path("t")}); err != nil {
				b.Fatal(err)
			}
		}
	})
	r.unpublish("v", "t")
	r.unstage("v")
}

// BenchmarkManyMounts is a volume's day on a node with 10,000 mounts of others.
func BenchmarkManyMounts(b *testing.B) {
	n := newLoopNode(b)
	r := newRealRig(b, n, n)
	n.make("v", 64*mib)
	must(b, os.Mkdir(r.path("src"), 0o700))
	for i := range 10_000 {
		p := r.path("others/" + strconv.Itoa(i))
		must(b, os.MkdirAll(p, 0o700))
		must(b, unix.Mount(r.path("src"), p, "", unix.MS_BIND, ""))
	}
	r.stage("v", "ext4")
	b.Run("publish+unpublish", func(b *testing.B) {
		for b.Loop() {
			r.publish("v", "t")
			r.unpublish("v", "t")
		}
	})
	r.unstage("v")
	b.Run("stage+unstage", func(b *testing.B) {
		for b.Loop() {
			r.stage("v", "ext4")
			r.unstage("v")
		}
	})
}
