package mounter_test

import (
	"os"
	"testing"

	"github.com/csikit/csikit/internal/testenv"
	"github.com/csikit/csikit/mounter/internal/mountapi"
)

// envAPI says what of the kernel the tests are to use: "old" is Linux 4.18's.
const envAPI = "CSIKIT_MOUNT_API"

func TestMain(m *testing.M) {
	child()
	if os.Getenv(envAPI) == "old" {
		mountapi.Hide(mountapi.All)
	}
	testenv.Main(m)
}
