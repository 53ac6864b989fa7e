package csidriver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/csikit/csikit/backends"
)

var healthLine = regexp.MustCompile(`/healthz and /readyz","address":"([^"]+)"`)

// healthRig is a driver with /healthz and /readyz, and what they answer.
type healthRig struct {
	*rig
	url string
}

func newHealthRig(t *testing.T, change func(*setup)) *healthRig {
	t.Helper()
	r := newRig(t, func(s *setup) {
		s.opts.HealthAddress = "127.0.0.1:0"
		if change != nil {
			change(s)
		}
	})
	r.log.wait(t, "/healthz and /readyz")
	return &healthRig{r, "http://" + healthLine.FindStringSubmatch(r.log.String())[1]}
}

// get asks as kubelet does.
func (r *healthRig) get(t *testing.T, path string) (int, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(r.url + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // read below
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(b))
}

func (r *healthRig) want(t *testing.T, path string, status int, word string) {
	t.Helper()
	got, body := r.get(t, path)
	if got != status || !strings.Contains(body, word) {
		t.Errorf("%s: %d %q, want %d with %q", path, got, body, status, word)
	}
}

// slowWord is what is said of a backend that takes its time.
const slowWord = "has not answered yet"

// TestHealthOverHTTP: a driver that starts is alive and not ready.
func TestHealthOverHTTP(t *testing.T) {
	release := make(chan struct{})
	r := newHealthRig(t, func(s *setup) {
		s.engine.hook = func(_ context.Context, method string) error {
			if method == "Start" {
				<-release
			}
			return nil
		}
	})
	r.want(t, "/healthz", 200, "starting")
	r.want(t, "/readyz", 503, "starting")
	close(release)
	r.ready(t)
	r.want(t, "/healthz", 200, "ok")
	r.want(t, "/readyz?verbose", 200, "ok")
	r.want(t, "/", 404, "/healthz")
	resp, err := http.Post(r.url+"/healthz", "text/plain", strings.NewReader("x"))
	if err != nil || resp.StatusCode != 405 {
		t.Errorf("POST: %v, %v", resp, err)
	}
	if err == nil {
		_ = resp.Body.Close()
	}
	resp, err = http.Head(r.url + "/healthz")
	if err != nil || resp.StatusCode != 200 {
		t.Errorf("HEAD: %v, %v", resp, err)
	}
	if err == nil {
		_ = resp.Body.Close()
	}
}

// TestHealthStops: who was stopped does not listen any more. Another program may have
// been given its port meanwhile, but not each time.
func TestHealthStops(t *testing.T) {
	for range 5 {
		r := newHealthRig(t, nil)
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err != nil {
			return
		}
		_ = conn.Close()
	}
	t.Error("it still listens")
}

// TestHealthOfStorage: storage that is away, slow or broken. Only the last is for a
// restart.
func TestHealthOfStorage(t *testing.T) {
	for _, tt := range []struct {
		name            string
		err             error
		healthy, status int
		word            string
	}{
		{"away", fmt.Errorf("%w: no quorum", backends.ErrNotReady), 200, 503, "not ready"},
		{"broken", errors.New("the library is corrupt"), 503, 503, "the library is corrupt"},
		{"slow", errSlow, 200, 503, slowWord},
	} {
		t.Run(tt.name, func(t *testing.T) {
			release := make(chan struct{})
			r := newHealthRig(t, func(s *setup) {
				if errors.Is(tt.err, errSlow) {
					s.wait.health = time.Millisecond
				}
				s.backend.hook = hookOn("Probe", func(context.Context) error {
					if errors.Is(tt.err, errSlow) {
						<-release
						return nil
					}
					return tt.err
				})
			})
			defer close(release)
			for !r.driver.ready.Load() {
				time.Sleep(time.Millisecond)
			}
			r.want(t, "/healthz", tt.healthy, tt.word)
			r.want(t, "/readyz", tt.status, tt.word)
		})
	}
}

var errSlow = errors.New("slow")

// TestHealthUnreachable: a driver whose socket somebody removed is dead for kubelet.
func TestHealthUnreachable(t *testing.T) {
	r := newHealthRig(t, nil)
	r.ready(t)
	if err := os.Remove(r.socket); err != nil {
		t.Fatal(err)
	}
	r.want(t, "/healthz", 503, "nobody can reach the driver")
	r.want(t, "/readyz", 503, "was removed")
}

// TestHealthGarbage: what is no request of HTTP is answered and costs nothing.
func TestHealthGarbage(t *testing.T) {
	r := newHealthRig(t, nil)
	address := strings.TrimPrefix(r.url, "http://")
	for _, sent := range []string{
		"\r\n\r\n", "GET /healthz\r\n\r\n", "GET /healthz SPDY/3\r\n\r\n", "GET /healthz HTTP/1.1\r\nno colon\r\n\r\n",
		"GET /" + strings.Repeat("a", healthRequest) + " HTTP/1.1\r\n\r\n", "\x16\x03\x01\x02\x00\r\n\r\n",
	} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(sent)); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(conn) // too long a request is not read to its end, which may reset the connection
		if !strings.HasPrefix(string(b), "HTTP/1.1 400 ") && err == nil {
			t.Errorf("%.20q: %q, %v", sent, b, err)
		}
		_ = conn.Close()
	}
	r.want(t, "/healthz", 200, "ok")
}

// TestHealthCrowd: who connects and says nothing, as often as it likes, does not
// keep kubelet from its answer, which would have the driver killed.
func TestHealthCrowd(t *testing.T) {
	r := newHealthRig(t, nil)
	r.ready(t)
	for range 4 * healthAtOnce {
		conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() //nolint:errcheck // a client's
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute} // probes have one, and less than the crowd has
	resp, err := client.Get(r.url + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Error(resp.Status)
	}
}

// TestHealthAddressTaken: the address is a setting; that it is taken ends the driver.
func TestHealthAddressTaken(t *testing.T) {
	r := newHealthRig(t, nil)
	d, err := New(r.driver.cfg, &Options{NodeID: "n", Engine: newFakeEngine(), HealthAddress: strings.TrimPrefix(r.url, "http://")})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Serve(t.Context(), listening(t)); err == nil || !strings.Contains(err.Error(), "HealthAddress") {
		t.Errorf("it served: %v", err)
	}
}
