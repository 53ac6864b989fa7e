package kmount_test

import (
	"log/slog"
	"testing"

	"k8s.io/klog/v2"

	"github.com/csikit/csikit/internal/testenv"
)

func TestMain(m *testing.M) {
	klog.SetSlogLogger(slog.New(slog.DiscardHandler)) // mount-utils tells of each error that is asked for
	testenv.Main(m)
}
