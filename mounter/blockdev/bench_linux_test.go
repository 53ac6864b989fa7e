package blockdev

import (
	"context"
	"os"
	"testing"
)

func openImage(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func BenchmarkProbe(b *testing.B) {
	for name, make := range map[string]func(path string){
		"blank": func(string) {},
		"ext4":  func(p string) { run(b, "mkfs.ext4", "-q", p) },
	} {
		b.Run(name, func(b *testing.B) {
			d, l, _ := loopDevice(b, 1<<30)
			make(l.Path)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := d.Probe(context.Background()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAttachDetach(b *testing.B) {
	ctx := context.Background()
	_, _, f := loopDevice(b, 1<<20)
	b.ReportAllocs()
	for b.Loop() {
		l, err := AttachLoop(ctx, f, AttachOptions{})
		if err != nil {
			b.Fatal(err)
		}
		if err := DetachLoop(ctx, l.Path, l.Dev, l.Ino); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerifyLoop(b *testing.B) {
	_, l, _ := loopDevice(b, 1<<20)
	b.ReportAllocs()
	for b.Loop() {
		if is, err := LoopIs(l.Path, l.Dev, l.Ino); err != nil || !is {
			b.Fatal(is, err)
		}
	}
}
