//go:build race

package conntrack

// raceDetector takes plain stores beside atomic loads for errors.
const raceDetector = true
