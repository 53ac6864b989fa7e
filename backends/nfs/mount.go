package nfs

import (
	"encoding/json"
	"net"
	"strconv"
	"strings"
)

// place is a share as a worker reaches it.
type place struct {
	Server  string   // "host" or an address; "": Dir
	Source  string   // of the share, not of a volume: "host:/export"
	Options []string // mount options, checked
	Dir     string   // a local directory; no mount is made
}

// placeOf is where a share is for tasks that work on all of it: its directory on
// this host if it has one here, else a mount of its own.
func placeOf(s Share) place {
	if s.LocalDir != "" {
		return place{Dir: s.LocalDir}
	}
	return place{Server: s.Server, Source: s.source(""), Options: s.Options}
}

// lane of the tasks with this name.
func (p place) lane(name string) (lane, error) {
	if p.Dir != "" {
		b, err := json.Marshal(shareTask{Dir: p.Dir})
		return lane{share: string(b), name: name, within: true}, err
	}
	o, err := parseOptions(p.Options)
	if err != nil {
		return lane{}, err
	}
	b, err := json.Marshal(shareTask{Host: p.Server, Source: p.Source, Options: p.Options})
	return lane{server: serverKey(p.Server, o), share: string(b), name: name}, err
}

// serverKey is host:port, by which breakers know a server, and pings reach it.
func serverKey(host string, o *mountOptions) string {
	if host == "" {
		return ""
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	key := net.JoinHostPort(host, strconv.Itoa(o.port()))
	if o.rdma() {
		return key + rdmaSuffix
	}
	return key
}

// rdmaSuffix marks a server that cannot be asked over TCP.
const rdmaSuffix = "/rdma"
