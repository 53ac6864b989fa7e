package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
)

// backend is a driver's side of the cloud; without a journal it is as most are.
type backend struct {
	http    *http.Client
	journal *Journal // nil: none
}

// order is what a process of the driver does.
type order struct {
	Socket, Journal string
	Create, Delete  string // a name; an ID
}

const envOrder = "CSIKIT_JOURNAL_ORDER"

var errUnavailable = errors.New("unavailable: the outcome is unknown")

// tried is the data of an intent: when the cloud was last asked, by its clock.
type tried struct{ At int }

// runOrder is a life of the driver: it replays, does one RPC and ends.
func runOrder(text string) (answer string, err error) {
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return "", err
	}
	b := &backend{http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", o.Socket)
		},
	}}}
	ctx := context.Background()
	if o.Journal != "" {
		if b.journal, err = Open(o.Journal, nil); err != nil {
			return "", err
		}
		if err := b.journal.Replay(ctx, b.replay); err != nil && !errors.Is(err, errUnavailable) {
			return "", err
		}
	}
	if o.Create != "" {
		return b.create(ctx, o.Create)
	}
	_, err = b.call(ctx, "delete", o.Delete)
	return "", err
}

func (b *backend) call(ctx context.Context, what, name string) (reply, error) {
	var r reply
	u := "http://cloud/" + what + "?name=" + url.QueryEscape(name)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u, nil)
	if err != nil {
		return r, err
	}
	resp, err := b.http.Do(req)
	if err != nil {
		return r, fmt.Errorf("%w: %w", errUnavailable, err)
	}
	defer func() { _ = resp.Body.Close() }()
	return r, json.NewDecoder(resp.Body).Decode(&r)
}

// create is CreateVolume.
func (b *backend) create(ctx context.Context, name string) (string, error) {
	if b.journal == nil {
		if r, err := b.call(ctx, "list", name); err != nil || r.ID != "" {
			return r.ID, err
		}
		r, err := b.call(ctx, "create", name)
		return r.ID, err
	}
	in, err := b.journal.Begin(name, tried{})
	if err != nil {
		return "", err
	}
	defer in.Leave()
	id, err := b.look(ctx, in)
	if err != nil || id != "" {
		return id, err
	}
	// There is none, and none on its way.
	r, err := b.call(ctx, "now", "")
	if err == nil {
		err = in.Update(tried{At: r.Now})
	}
	if err == nil {
		_, err = b.call(ctx, "create", name)
	}
	if err != nil {
		return "", err // the next call looks
	}
	for id == "" && (err == nil || errors.Is(err, errUnavailable)) {
		id, err = b.look(ctx, in)
	}
	return id, err
}

// look says which volume an intent has made, and ends the intent when the cloud
// shows it: then everybody can see it. Empty without an error: there is none.
func (b *backend) look(ctx context.Context, in *Intent) (string, error) {
	var last tried
	if err := in.Decode(&last); err != nil {
		return "", err
	}
	r, err := b.call(ctx, "list", in.Key())
	switch {
	case err != nil:
		return "", err
	case r.ID != "":
		return r.ID, in.Finish()
	case last.At > 0 && r.Now <= last.At+1+lag:
		return "", fmt.Errorf("%w: %s may be on its way", errUnavailable, in.Key())
	}
	return "", nil
}

// replay ends the intents whose outcome can be seen.
func (b *backend) replay(ctx context.Context, in *Intent) error {
	id, err := b.look(ctx, in)
	if err != nil || id != "" {
		return err
	}
	return in.Finish()
}

// orderMain is main of a process with an order.
func orderMain(text string) {
	answer, err := runOrder(text)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		if errors.Is(err, errUnavailable) {
			os.Exit(exitUnavailable)
		}
		os.Exit(1)
	}
	fmt.Print(answer)
	os.Exit(0)
}

const exitUnavailable = 14
