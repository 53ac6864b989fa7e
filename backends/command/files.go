package command

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/csikit/csikit/backends"
)

// secretFiles makes the files and puts their paths into the arguments. What was
// made is returned with an error, too.
func secretFiles(secrets map[string]backends.Secret, args []string) ([]*os.File, []string, error) {
	args = slices.Clone(args)
	var files []*os.File
	for _, name := range slices.Sorted(maps.Keys(secrets)) {
		f, err := secretFile(secrets[name].Reveal())
		if err != nil {
			return files, nil, fmt.Errorf("secret file %s: %w", name, err)
		}
		files = append(files, f)
		// os/exec numbers ExtraFiles from 3 on.
		path, used := "/proc/self/fd/"+strconv.Itoa(2+len(files)), false
		for i, a := range args {
			args[i] = strings.ReplaceAll(a, fileMarker+name+"}", path)
			used = used || args[i] != a
		}
		if !used {
			return files, nil, fmt.Errorf("no argument uses {file:%s}", name)
		}
	}
	for _, a := range args {
		if _, rest, ok := strings.Cut(a, fileMarker); ok {
			name, _, _ := strings.Cut(rest, "}")
			return files, nil, fmt.Errorf("{file:%s} is not in Files", name)
		}
	}
	return files, args, nil
}
