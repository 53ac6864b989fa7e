package mnt_test

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter/mnt"
)

// TestHolders: each way to keep a mount busy is named, with the process.
func TestHolders(t *testing.T) {
	testenv.Root(t)
	testenv.Tool(t, "cat", "losetup")
	self := "process " + itoa(os.Getpid()) + " ("
	tests := map[string]func(t *testing.T, p string) (want []string, let func()){
		"open file": func(t *testing.T, p string) ([]string, func()) {
			f, err := os.Open(mkfile(t, p, "f"))
			must(t, err)
			return []string{self, "by fd/" + itoa(int(f.Fd()))}, func() { must(t, f.Close()) }
		},
		"mapped file that is closed": func(t *testing.T, p string) ([]string, func()) {
			f, err := os.Open(mkfile(t, p, "f"))
			must(t, err)
			b, err := unix.Mmap(int(f.Fd()), 0, 1, unix.PROT_READ, unix.MAP_PRIVATE)
			must(t, errors.Join(err, f.Close()))
			return []string{self, "by a mapping"}, func() { must(t, unix.Munmap(b)) }
		},
		"working directory": func(t *testing.T, p string) ([]string, func()) {
			cmd := exec.Command("cat")
			cmd.Dir = p
			in, err := cmd.StdinPipe()
			must(t, err)
			must(t, cmd.Start())
			return []string{"process " + itoa(cmd.Process.Pid) + " (cat) by cwd"}, func() {
				must(t, in.Close())
				must(t, cmd.Wait())
			}
		},
		"loop device": func(t *testing.T, p string) ([]string, func()) {
			must(t, os.WriteFile(p+"/img", make([]byte, 1<<20), 0o600))
			loop := sh(t, "losetup", "-f", "--show", p+"/img")
			return []string{loop}, func() { sh(t, "losetup", "-d", loop) }
		},
		"mount on it": func(t *testing.T, p string) ([]string, func()) {
			bind(t, p, mkdir(t, p, "sub"))
			return []string{"mount " + p + "/sub"}, func() { must(t, unix.Unmount(p+"/sub", 0)) }
		},
	}
	for name, hold := range tests {
		t.Run(name, func(t *testing.T) {
			p := mkdir(t, tempDir(t), "p")
			must(t, unix.Mount("none", p, "tmpfs", 0, ""))
			want, let := hold(t, p)
			_, err := mnt.Unmount(p)
			let()
			if !errors.Is(err, backends.ErrInUse) {
				t.Fatal(err)
			}
			for _, w := range want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("no %q in %v", w, err)
				}
			}
			if n, err := mnt.Unwind(p); n != 1 || err != nil {
				t.Errorf("when it was let go: %d, %v", n, err)
			}
		})
	}
}
