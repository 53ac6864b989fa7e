package csiclient

import "testing"

func TestTarget(t *testing.T) {
	for in, want := range map[string]string{
		"":                   "",
		"/a/csi.sock":        "unix:///a/csi.sock",
		"unix:/a/csi.sock":   "unix:///a/csi.sock",
		"unix:///a/csi.sock": "unix:///a/csi.sock",
		"tcp://h:1":          "passthrough:///h:1",
		"passthrough:///h:1": "passthrough:///h:1",
	} {
		if got, err := Target(in); got != want || err != nil {
			t.Errorf("Target(%q) = %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"http://x", "unix:csi.sock", "csi.sock", "unix://csi.sock"} {
		if got, err := Target(in); err == nil {
			t.Errorf("Target(%q) = %q", in, got)
		}
	}
	if Endpoint("passthrough:///h:1") != "tcp://h:1" || Endpoint("unix:///a") != "unix:///a" {
		t.Error("Endpoint")
	}
	if SocketPath("unix:///a/csi.sock") != "/a/csi.sock" || SocketPath("passthrough:///h:1") != "" {
		t.Error("SocketPath")
	}
}
