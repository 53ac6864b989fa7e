package sanity

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	csitest "github.com/kubernetes-csi/csi-test/v5/pkg/sanity"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	"google.golang.org/grpc"

	"github.com/csikit/csikit/internal/csiclient"
)

// orderEnv names the file with the order of the child process.
const orderEnv = "CSIKIT_SANITY_ORDER"

// order is what the child process is to do.
type order struct {
	Config      Config // without the driver
	SecretsFile string
	Report      string // where ginkgo's JSON report goes
	Left        string // where it goes what was made and not deleted
	Live        bool   // descriptor liveFD wants to hear of each spec
}

// Child runs csi-sanity if this process was started by [Check] for that, and
// says whether it was: then the process has nothing else to do. A command that
// uses Check calls it first of all. The verdict goes to the process that asked.
func Child() (was bool, err error) { return obey(context.Background()) }

// obey does what the order says, if there is one.
func obey(ctx context.Context) (was bool, err error) {
	file := os.Getenv(orderEnv)
	if file == "" {
		return false, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return true, fmt.Errorf("sanity: %w", err)
	}
	var o order
	if err := json.Unmarshal(b, &o); err != nil {
		return true, fmt.Errorf("sanity: %s: %w", file, err)
	}
	return true, runSpecs(ctx, &o)
}

// untold takes the verdict, which is in the report.
type untold struct{}

func (untold) Fail() {}

func runSpecs(ctx context.Context, o *order) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		// The parent holds the other end. When it is gone all calls fail, and the
		// rest of the specs is over at once.
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	var l ledger
	c := csitestConfig(ctx, o, &l)
	suite, reporter := ginkgo.GinkgoConfiguration()
	suite.Timeout = o.Config.Timeout
	suite.GracePeriod = 5 * time.Second
	suite.RandomSeed = 1 // the same order each time
	reporter.JSONReport = o.Report
	reporter.NoColor = true

	tests := csitest.GinkgoTest(c)
	if o.Live {
		tell(os.NewFile(liveFD, "specs"))
	}
	gomega.RegisterFailHandler(ginkgo.Fail)
	ginkgo.RunSpecs(untold{}, "csi-sanity", suite, reporter)
	tests.Finalize()
	return writeJSON(o.Left, l.made)
}

func csitestConfig(ctx context.Context, o *order, l *ledger) *csitest.TestConfig {
	c := csitest.NewTestConfig()
	c.Address, c.ControllerAddress = o.Config.Endpoint, o.Config.ControllerEndpoint
	c.TargetPath, c.StagingPath = o.Config.Dir+"/target", o.Config.Dir+"/staging"
	c.SecretsFile = o.SecretsFile
	c.TestVolumeSize, c.TestVolumeExpandSize = o.Config.Size, o.Config.ExpandSize
	c.TestVolumeParameters = o.Config.Parameters
	c.TestVolumeMutableParameters = o.Config.MutableParameters
	c.TestSnapshotParameters = o.Config.SnapshotParameters
	c.TestNodeVolumeAttachLimit = o.Config.AttachLimit
	if o.Config.Block {
		c.TestVolumeAccessType = "block"
	}
	c.DialOptions = append(csiclient.DialOptions(), grpc.WithChainUnaryInterceptor(bounded(ctx, o.Config.CallTimeout), new(patience).intercept, l.intercept))
	c.ControllerDialOptions = c.DialOptions
	return &c
}

// bounded gives each call a deadline, for csi-sanity calls with
// context.Background, and ends it with ctx.
func bounded(ctx context.Context, limit time.Duration) grpc.UnaryClientInterceptor {
	return func(call context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		call, cancel := context.WithTimeout(call, limit)
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		return invoke(call, method, req, reply, cc, opts...)
	}
}
