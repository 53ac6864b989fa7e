package testenv

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestBubbleTimers polls timers as it takes to end the race detector one time of
// three in a bare bubble.
func TestBubbleTimers(t *testing.T) {
	for range 100 {
		Bubble(t, func(*testing.T) {
			var polls sync.WaitGroup
			for range 8 {
				polls.Go(func() {
					for range 200 {
						timer := time.NewTimer(time.Millisecond)
						time.Sleep(time.Millisecond)
						select {
						case <-timer.C:
						default:
						}
						timer.Stop()
					}
				})
			}
			polls.Wait()
		})
	}
}

// TestBubblesAreOurs looks for a bubble that is made without Bubble.
func TestBubblesAreOurs(t *testing.T) {
	root := filepath.Join("..", "..")
	bare := []byte("synctest" + ".Test(")
	found := 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if bytes.Contains(text, bare) {
			t.Errorf("%s makes a bubble that the race detector may not survive: testenv.Bubble", path)
		}
		if bytes.Contains(text, []byte("testenv.Bubble(")) {
			found++
		}
		return err
	})
	if err != nil || found == 0 {
		t.Fatalf("%d files use testenv.Bubble: %v", found, err)
	}
}
