package mutants

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// detachLoops frees the loop devices on files below a directory, and tells whether
// there were some.
func detachLoops(dir string) bool {
	const loopClrFD = 0x4C01
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file") // the pattern is good
	found := false
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil || !strings.Contains(string(b), dir+"/") {
			continue
		}
		found = true
		if dev, err := os.Open("/dev/" + filepath.Base(filepath.Dir(filepath.Dir(f)))); err == nil {
			_, _, _ = syscall.Syscall(syscall.SYS_IOCTL, dev.Fd(), loopClrFD, 0) // the next round sees it
			_ = dev.Close()                                                      // nothing was written
		}
	}
	return found
}
