package command_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/command"
)

func Example() {
	r := command.New(nil)
	res, err := r.Run(context.Background(), command.Cmd{Path: "uname", Idle: 10 * time.Second})
	var exit *command.ExitError
	var missing *command.NotInstalledError
	switch {
	case errors.As(err, &missing):
		fmt.Println("install", missing.Package)
	case errors.Is(err, context.DeadlineExceeded):
		fmt.Println("it hung:", err)
	case errors.As(err, &exit):
		fmt.Println("exit code", exit.Code, exit.Stderr)
	default:
		fmt.Println("answer of", len(res.Stdout) > 0, "bytes")
	}
	// Output: answer of true bytes
}

// A passphrase goes to the tool in a file that exists only for it.
func ExampleCmd_files() {
	open := command.Cmd{
		Path:  "cryptsetup",
		Args:  []string{"open", "--key-file", "{file:key}", "/dev/sdx", "vol-1"},
		Files: map[string]backends.Secret{"key": backends.NewSecret("correct horse")},
		Scope: "vol-1",
	}
	_, err := command.New(&command.Options{Path: "/nowhere"}).Run(context.Background(), open)
	fmt.Println(err)
	// Output: cryptsetup is not installed on this node (Debian package cryptsetup-bin)
}
