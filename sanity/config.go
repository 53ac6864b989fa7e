package sanity

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/csikit/csikit/csidriver"
	"github.com/csikit/csikit/internal/csiclient"
	"github.com/csikit/csikit/sanity/internal/check"
	"github.com/csikit/csikit/sanity/internal/suite"
)

// Config says what to test. Either Driver or Endpoint is needed.
type Config struct {
	// Driver is served by this process, on a socket of its own.
	Driver csidriver.Config
	// Options of Driver. What is empty of NodeID, StateDir and Logger gets a
	// value of this test's.
	Options *csidriver.Options

	// Endpoint is where a driver answers that somebody else started:
	// unix:///path or tcp://host:port (in clear text).
	Endpoint string
	// ControllerEndpoint is that of the Controller service, if it is another.
	ControllerEndpoint string

	// Only lists what to run: "csi-sanity", "H-05", "H-05/one-name", or "H" for
	// all that are ours. Nothing: everything.
	Only []string
	// FailFast ends the run at the first FAIL.
	FailFast bool

	// Block tests raw block volumes, not file systems.
	Block bool
	// Size of the volumes, 0: 1 GiB; ExpandSize is what they grow to, 0: twice
	// Size. csi-sanity wants to get exactly this size when a volume grows.
	Size, ExpandSize int64
	// Many is how many volumes the checks make that want many, 0: 1000. They make
	// fewer when that takes long.
	Many int
	// Parameters of CreateVolume, of ControllerModifyVolume and of CreateSnapshot.
	Parameters, MutableParameters, SnapshotParameters map[string]string
	// Secrets are sent with every request that takes some.
	Secrets map[string]string
	// AttachLimit says that the controller holds to the node's max_volumes_per_node:
	// that it publishes more to a node is a FAIL then, and not a WARN.
	AttachLimit bool
	// OtherNode is the node_id of another node that the driver knows, for the checks
	// of volumes at two nodes. "": there is none.
	OtherNode string
	// Seed of what is random, 0: one that the result names.
	Seed uint64

	// Host says whether what the driver mounts is to be seen by this process:
	// "yes", "no" (a mock), or "", which looks.
	Host string
	// Restart kills the driver and starts it again, for the checks of that.
	Restart func(context.Context) error `json:"-"`
	// Logs reads what the driver has written to its log.
	Logs func() ([]byte, error) `json:"-"`
	// Reproduce gives the command that runs one check again. Nil: csikit check, or
	// go test.
	Reproduce func(id string) string `json:"-"`

	// SkipsFile lists the specs of csi-sanity that are skipped, sorted, one a line.
	// The test fails when others are. With CSIKIT_SANITY_UPDATE=1 in the
	// environment it is written. "": whatever is skipped is.
	SkipsFile string
	// Dir is where target and staging paths are made; a driver in another mount
	// namespace must see it under the same name. "": t.TempDir(); of Check, a
	// directory of its own that it removes.
	Dir string
	// Timeout of the run, 0: 15 minutes; CallTimeout of each RPC, 0: 1 minute, or
	// a quarter of Timeout.
	Timeout, CallTimeout time.Duration
}

// complete checks c and fills in the defaults.
func (c *Config) complete() error {
	inProcess := c.Driver.Controller != nil || c.Driver.Node != nil
	switch {
	case inProcess && (c.Endpoint != "" || c.ControllerEndpoint != ""):
		return errors.New("sanity: both Driver and Endpoint are set")
	case !inProcess && c.Endpoint == "":
		return errors.New("sanity: neither Driver nor Endpoint is set")
	case c.Host != "" && c.Host != "yes" && c.Host != "no":
		return fmt.Errorf("sanity: Host is %q, want yes, no or nothing", c.Host)
	}
	setDefault(&c.Size, 1<<30)
	setDefault(&c.ExpandSize, 2*c.Size)
	setDefault(&c.Many, 1000)
	setDefault(&c.Timeout, 15*time.Minute)
	setDefault(&c.CallTimeout, min(time.Minute, c.Timeout/4))
	var err1, err2 error
	c.Endpoint, err1 = csiclient.Target(c.Endpoint)
	c.ControllerEndpoint, err2 = csiclient.Target(c.ControllerEndpoint)
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("sanity: %w", err)
	}
	return c.checkOnly()
}

// Check says what is wrong with c before anything is run.
func (c Config) Check() error { return c.complete() }

func setDefault[T int | int64 | time.Duration](v *T, to T) {
	if *v == 0 {
		*v = to
	}
}

// checkOnly refuses words that mean no check: a run of nothing would pass.
func (c *Config) checkOnly() error {
	for _, o := range c.Only {
		known := check.Selected([]string{csiSanity}, o) || slices.ContainsFunc(Checks(), func(i Info) bool { return check.Selected([]string{o}, i.ID) })
		if !known {
			return fmt.Errorf("sanity: there is no check %q", o)
		}
	}
	return nil
}

// controllerEndpoint is where the Controller service is.
func (c *Config) controllerEndpoint() string {
	if c.ControllerEndpoint != "" {
		return c.ControllerEndpoint
	}
	return c.Endpoint
}

// internal is what the checks are told. The driver answers already.
func (c *Config) internal(inProcess bool) check.Config {
	k := check.Config{
		Node: c.Endpoint, Controller: c.controllerEndpoint(), Only: c.Only, FailFast: c.FailFast,
		Block: c.Block, Parameters: c.Parameters, MutableParameters: c.MutableParameters, SnapshotParameters: c.SnapshotParameters,
		AttachLimit: c.AttachLimit, OtherNode: c.OtherNode,
		Secrets: c.Secrets, Size: c.Size, ExpandSize: c.ExpandSize, Many: c.Many, Seed: c.Seed,
		Dir: c.Dir, Logs: c.Logs, Restart: c.Restart, CallTimeout: c.CallTimeout, Reproduce: c.reproduce,
	}
	socket := csiclient.SocketPath(c.Endpoint)
	switch {
	case c.Host != "":
		k.Host = c.Host == "yes"
	case inProcess:
		k.Host = c.Options == nil || c.Options.Engine == nil
	default:
		k.Host = csiclient.SameHost(socket)
	}
	if pid, err := csiclient.Peer(socket); err == nil && int(pid) != os.Getpid() && k.Host {
		k.PID = int(pid)
	}
	return k
}

// Info describes a check.
type Info struct {
	ID, Title string
	Clauses   []string // of the spec, that it proves
	Needs     string   // what a driver, and this machine, must have for it
}

// Checks lists the checks that are ours; those of csi-sanity are not among them.
func Checks() []Info {
	var all []Info
	for _, c := range append(suite.All(), check.Subjects()...) {
		all = append(all, Info{ID: c.ID, Title: c.Title, Clauses: c.ClauseIDs(), Needs: c.Needs})
	}
	return all
}
