package loopfile

import (
	"os"
	"path/filepath"
	"sync"
	"time"
)

func queueFile(path, name string) string {
	return filepath.Join("/sys/block", filepath.Base(path), "queue", name)
}

// stopDiscard keeps a loop device from passing discards on to its file.
func stopDiscard(path string) error {
	if discardStopped(path) {
		return nil
	}
	return os.WriteFile(queueFile(path, "discard_max_bytes"), []byte("0"), 0)
}

// discardStopped says whether a device that could discard may not.
func discardStopped(path string) bool {
	may, err := os.ReadFile(queueFile(path, "discard_max_bytes"))
	if err != nil || string(may) != "0\n" {
		return false
	}
	could, err := os.ReadFile(queueFile(path, "discard_max_hw_bytes"))
	return err == nil && string(could) != "0\n"
}

// reuseAfter is how long a loop device without discard waits for the next thick
// volume.
const reuseAfter = 30 * time.Second

// reuse keeps the loop devices that were detached from thick volumes. The kernel
// keeps their setting, and (measured with 6.18) does not take it back: whoever
// gets such a device next could not discard. The next thick volume is welcome to
// it; when none comes, the device is removed and made anew. That takes 40 ms, too
// long for an unstage.
type reuse struct {
	mu    sync.Mutex
	paths map[string]bool
	timer *time.Timer
}

func (r *reuse) later(path string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.paths == nil {
		r.paths = map[string]bool{}
	}
	r.paths[path] = true
	if r.timer == nil {
		r.timer = time.AfterFunc(reuseAfter, r.remove)
		return
	}
	r.timer.Reset(reuseAfter)
}

// remove removes what nobody uses by now. A device that is attached again says
// EBUSY, and comes back here when it is detached.
func (r *reuse) remove() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.timer != nil {
		r.timer.Stop()
	}
	for path := range r.paths {
		_ = renewLoop(path)
	}
	clear(r.paths)
}
