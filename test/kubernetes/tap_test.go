package kubernetes

import (
	"bytes"
	"encoding/base64"
	wire "encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

// tap listens where kubelet looks for a driver's socket, hands on what kubelet says to it, and keeps
// the tokens that were in it. kubelet opens a connection for each call. Nobody writes
// a token down: they are in memory alone.
type tap struct {
	socket string // where kubelet looks
	own    string // what is mounted there
	driver string // where the driver listens, by another name
	mu     sync.Mutex
	tokens []token
	failed error
	gone   error // the driver did not listen there any more
}

// token is a service account's, as NodePublishVolume brings it for an audience.
type token struct {
	audience  string
	inSecrets bool // and not in volume_context
	value     string
	claims    claims
}

// claims are what a token says of itself.
type claims struct {
	ID      string   `json:"jti"`
	Aud     []string `json:"aud"`
	Issued  int64    `json:"iat"`
	Expires int64    `json:"exp"`
	K8s     struct {
		Namespace string
		Pod       struct{ Name, UID string }
	} `json:"kubernetes.io"`
}

// tapped puts a tap before the driver's socket until the flow ends: over it, in the
// mount namespace of kubelet. The driver, in its own, has its socket where it was. One
// that is started anew makes another, which the tap is not before: the flow fails, and
// says so.
func tapped(s *space) *tap {
	s.Helper()
	socket := "/var/lib/kubelet/plugins/" + s.d.driver.name + "/csi.sock"
	p := &tap{socket: socket, own: socket + ".tap", driver: socket + ".driver"}
	do := func(err error, undo func() error) {
		s.Helper()
		if err != nil {
			s.Fatal(err)
		}
		s.Cleanup(func() {
			if err := undo(); err != nil {
				s.Error(err)
			}
		})
	}
	l, err := net.Listen("unix", p.own)
	do(err, func() error { return l.Close() }) // which removes it
	do(os.Link(socket, p.driver), func() error { return os.Remove(p.driver) })
	do(nil, p.heard)
	do(tool("mount", "--bind", p.own, socket), func() error { return tool("umount", "--lazy", socket) })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			go p.serve(c)
		}
	}()
	return p
}

// heard says what kubelet said and nobody could read.
func (p *tap) heard() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed != nil {
		return fmt.Errorf("what kubelet said could not be read: %w", p.failed)
	}
	return nil
}

// before says whether the tap is still between kubelet and the driver.
func (p *tap) before() error {
	here, err := os.Stat(p.socket)
	own, err2 := os.Stat(p.own)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch err := errors.Join(p.gone, err, err2); {
	case err != nil:
		return fmt.Errorf("the driver was started anew, and the tap is before the socket that it had: %w", err)
	case !os.SameFile(here, own):
		return errors.New("the driver was started anew, and its socket is where the tap was")
	}
	return nil
}

func (p *tap) serve(caller net.Conn) {
	driver, err := net.Dial("unix", p.driver)
	if err != nil {
		_ = caller.Close() // it sees that nobody answers
		p.mu.Lock()
		p.gone = err
		p.mu.Unlock()
		return
	}
	go func() {
		_, _ = io.Copy(caller, driver) // one of them has gone
		_ = caller.Close()
	}()
	r, w := io.Pipe()
	go func() {
		if err := p.listen(r); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			p.mu.Lock()
			p.failed = err
			p.mu.Unlock()
		}
		_, _ = io.Copy(io.Discard, r) // so that the call goes on
	}()
	_, _ = io.Copy(driver, io.TeeReader(caller, w))
	_ = w.Close()
	_ = driver.Close()
}

// listen reads HTTP/2, whose DATA frames have gRPC's messages, each behind 5 bytes.
func (p *tap) listen(r io.Reader) error {
	const preface, data, endStream, padded = 24, 0, 1, 8
	if _, err := io.CopyN(io.Discard, r, preface); err != nil {
		return err
	}
	streams := map[uint32][]byte{}
	for {
		var head [9]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return err
		}
		body := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
		if _, err := io.ReadFull(r, body); err != nil {
			return err
		}
		stream := wire.BigEndian.Uint32(head[5:])
		if head[3] != data {
			continue
		}
		if head[4]&padded != 0 {
			return errors.New("a padded frame")
		}
		streams[stream] = append(streams[stream], body...)
		if head[4]&endStream != 0 {
			if m := streams[stream]; len(m) > 5 {
				if err := p.request(m[5:]); err != nil {
					return err
				}
			}
			delete(streams, stream)
		}
	}
}

// request looks for tokens in a message: they are NodePublishVolume's alone, in
// secrets or in volume_context.
func (p *tap) request(message []byte) error {
	const secrets, volumeContext = 7, 8
	const key = "csi.storage.k8s.io/serviceAccount.tokens"
	if !bytes.Contains(message, []byte(key)) {
		return nil
	}
	found := false
	err := fields(message, func(number uint64, entry []byte) error {
		if number != secrets && number != volumeContext {
			return nil
		}
		var pair [3]string
		if err := fields(entry, func(n uint64, v []byte) error { pair[min(n, 2)] = string(v); return nil }); err != nil {
			return err
		}
		if pair[1] != key {
			return nil
		}
		found = true
		return p.keep(number == secrets, pair[2])
	})
	if err == nil && !found {
		err = errors.New("tokens are in another field")
	}
	return err
}

func (p *tap) keep(inSecrets bool, written string) error {
	var byAudience map[string]struct {
		Token               string
		ExpirationTimestamp time.Time
	}
	if err := json.Unmarshal([]byte(written), &byAudience); err != nil {
		return err
	}
	for audience, t := range byAudience {
		k := token{audience: audience, inSecrets: inSecrets, value: t.Token}
		parts := strings.Split(t.Token, ".")
		if len(parts) != 3 {
			return errors.New("a token without three parts")
		}
		b, err := base64.RawURLEncoding.DecodeString(parts[1])
		if err := errors.Join(err, json.Unmarshal(b, &k.claims)); err != nil {
			return err
		}
		if e := t.ExpirationTimestamp.Unix(); e != k.claims.Expires {
			return fmt.Errorf("kubelet says that it expires at %d, the token at %d", e, k.claims.Expires)
		}
		p.mu.Lock()
		p.tokens = append(p.tokens, k)
		p.mu.Unlock()
	}
	return nil
}

// fields are those of a message whose values are of some length; numbers are skipped.
func fields(message []byte, f func(number uint64, value []byte) error) error {
	errShort := errors.New("a message that is cut")
	for len(message) > 0 {
		tag, n := wire.Uvarint(message)
		if n <= 0 {
			return errShort
		}
		v, m := wire.Uvarint(message[n:])
		if m <= 0 {
			return errShort
		}
		message = message[n+m:]
		switch tag & 7 {
		case 0: // a number
		case 2:
			if v > uint64(len(message)) {
				return errShort
			}
			if err := f(tag>>3, message[:v]); err != nil {
				return err
			}
			message = message[v:]
		default:
			return fmt.Errorf("a field of wire type %d", tag&7)
		}
	}
	return nil
}

// after waits for a token that is as wanted, of a call after the first so many tokens.
func (p *tap) after(s *space, seen int, what string, ok func(token) bool) (found token) {
	s.Helper()
	eventually(s.T, what, func() error {
		if err := p.before(); err != nil {
			s.Fatal(err)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, k := range p.tokens[min(seen, len(p.tokens)):] {
			if ok(k) {
				found = k
				return nil
			}
		}
		return fmt.Errorf("of %d tokens since %d none is", len(p.tokens)-seen, seen)
	})
	return found
}

// seen is how many tokens have come.
func (p *tap) seen() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.tokens)
}
