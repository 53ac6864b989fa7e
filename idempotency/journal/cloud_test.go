package journal

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
)

// cloud is an API as backends have to live with. It makes a new volume for every
// request, the same one sent again too; a listing shows a volume only some time
// after it was made; and it loses replies. Its clock counts requests, and it lives
// outside of the processes that are killed.
type cloud struct {
	mu      sync.Mutex
	idle    *sync.Cond
	clock   int
	made    int
	volumes map[string]*cloudVolume
	lose    int // of so many creations the reply of one is lost; 0: of none
	open    int // connections
	socket  string
}

type cloudVolume struct {
	Name    string
	visible int // when a listing shows it
}

// lag is how long a volume is not listed.
const lag = 4

func newCloud(t *testing.T) *cloud {
	c := &cloud{volumes: make(map[string]*cloudVolume), socket: filepath.Join(t.TempDir(), "api")}
	c.idle = sync.NewCond(&c.mu)
	lis, err := new(net.ListenConfig).Listen(t.Context(), "unix", c.socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: c, ConnState: func(_ net.Conn, st http.ConnState) {
		c.mu.Lock()
		defer c.mu.Unlock()
		switch st {
		case http.StateNew:
			c.open++
		case http.StateClosed, http.StateHijacked:
			c.open--
			c.idle.Broadcast()
		}
	}}
	go func() { _ = s.Serve(lis) }()
	t.Cleanup(func() { _ = s.Close() })
	return c
}

func (c *cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.URL.Path == "/ping" {
		return
	}
	c.clock++
	answer := reply{Now: c.clock}
	switch name := r.FormValue("name"); r.URL.Path {
	case "/create":
		c.made++
		answer.ID = fmt.Sprintf("vol-%d", c.made)
		c.volumes[answer.ID] = &cloudVolume{name, c.clock + lag}
		if c.lose > 0 && c.made%c.lose == 1 {
			panic(http.ErrAbortHandler)
		}
	case "/list":
		for id, v := range c.volumes {
			if v.Name == name && c.clock >= v.visible {
				answer.ID = id
			}
		}
	case "/delete":
		delete(c.volumes, name)
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// reply is what the API answers.
type reply struct {
	Now int
	ID  string // of a volume; empty: none
}

// settle waits until what killed processes have sent is served: connections are
// accepted in order, so that behind one more there is none.
func (c *cloud) settle(t *testing.T) {
	conn, err := new(net.Dialer).DialContext(t.Context(), "unix", c.socket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("GET /ping HTTP/1.0\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.open > 0 {
		c.idle.Wait()
	}
}

// loses says of how many creations the reply of one is lost.
func (c *cloud) loses(one int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lose = one
}

// has lists the volumes by name.
func (c *cloud) has() map[string][]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make(map[string][]string)
	for id, v := range c.volumes {
		all[v.Name] = append(all[v.Name], id)
	}
	return all
}
