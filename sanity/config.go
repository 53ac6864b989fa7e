package sanity

import (
	"errors"
	"fmt"
	"time"

	"github.com/csikit/csikit/csidriver"
	"github.com/csikit/csikit/internal/csiclient"
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

	// Block tests raw block volumes, not file systems.
	Block bool
	// Size of the volumes, 0: 1 GiB; ExpandSize is what they grow to, 0: twice
	// Size. csi-sanity wants to get exactly this size when a volume grows.
	Size, ExpandSize int64
	// Parameters of CreateVolume, of ControllerModifyVolume and of CreateSnapshot.
	Parameters, MutableParameters, SnapshotParameters map[string]string
	// Secrets are sent with every request that takes some.
	Secrets map[string]string
	// AttachLimit also tests max_volumes_per_node, by that many volumes.
	AttachLimit bool

	// SkipsFile lists the specs that are skipped, sorted, one a line. The test
	// fails when others are. With CSIKIT_SANITY_UPDATE=1 in the environment it is
	// written. "": whatever is skipped is.
	SkipsFile string
	// Dir is where target and staging paths are made; a driver in another mount
	// namespace must see it under the same name. "": t.TempDir(); of Check, a
	// directory of its own that it removes.
	Dir string
	// Timeout of the run, 0: 5 minutes; CallTimeout of each RPC, 0: 1 minute.
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
	}
	setDefault(&c.Size, 1<<30)
	setDefault(&c.ExpandSize, 2*c.Size)
	setDefault(&c.Timeout, 5*time.Minute)
	setDefault(&c.CallTimeout, time.Minute)
	var err1, err2 error
	c.Endpoint, err1 = csiclient.Target(c.Endpoint)
	c.ControllerEndpoint, err2 = csiclient.Target(c.ControllerEndpoint)
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("sanity: %w", err)
	}
	return nil
}

func setDefault[T int64 | time.Duration](v *T, to T) {
	if *v == 0 {
		*v = to
	}
}
