package lvm

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/csikit/csikit/internal/testenv"
)

func TestMain(m *testing.M) {
	if ids := os.Getenv(envFreeze); ids != "" {
		fmt.Fprintln(os.Stderr, freezeAndWait(ids))
		os.Exit(1)
	}
	testenv.Main(m)
}

// envFreeze has this program freeze volumes, by their IDs, and wait to be killed.
const envFreeze = "CSIKIT_LVM_FREEZE"

// freezeAndWait is another process of the driver, in the middle of a group.
func freezeAndWait(ids string) error {
	o := testOptions()
	o.FreezeLimit = time.Hour
	b, err := New(o)
	if err != nil {
		return err
	}
	var vols []*volume
	for id := range strings.FieldsSeq(ids) {
		_, v, err := b.volume(context.Background(), id, kindVolume)
		if err != nil {
			return err
		}
		vols = append(vols, v)
	}
	if _, err := b.quiesce(context.Background(), vols); err != nil {
		return err
	}
	fmt.Println("frozen")
	select {}
}
