// The reverse proxy of Go's standard library, as one would start it: PORT ORIGIN_PORT IDLE_CONNECTIONS.
package main

import (
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strconv"
	"time"
)

func main() {
	origin, err := url.Parse("http://127.0.0.1:" + os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	idle, err := strconv.Atoi(os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(origin)
	proxy.Transport = &http.Transport{
		MaxIdleConns:        idle,
		MaxIdleConnsPerHost: idle, // the default of 2 would open a connection for nearly every request
		IdleConnTimeout:     10 * time.Minute,
		DisableCompression:  true, // pass bodies on as they are
	}
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], proxy))
}
