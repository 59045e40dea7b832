package ovs

// Numbers of linux/openvswitch.h, under names of ours: the kernel's less OVS_ and ATTR_.

// Commands; packets have their own.
const (
	cmdNew, cmdDel, cmdGet, cmdSet = 1, 2, 3, 4

	packetMiss, packetAction, packetExecute = 1, 2, 3
)

// Attributes of a datapath, and its features.
const (
	dpName, dpUpcallPID, dpStats, dpUserFeatures = 1, 2, 3, 5

	featureUnaligned, featureVportPIDs = 1, 2
)

// Attributes and types of a vport, and a bound on numbers.
const (
	vportPortNo, vportType, vportName, vportUpcallPID, vportStats, vportIfindex = 1, 2, 3, 5, 6, 8

	vportNetdev = 1
	portLocal   = 0
	maxPorts    = 65535
)

// Attributes of a flow.
const (
	flowKey, flowActions, flowStats, flowTCPFlags, flowUsed, flowMask = 1, 2, 3, 4, 5, 7
)

// Attributes of a packet.
const (
	packetPacket, packetKey, packetActions, packetUserdata = 1, 2, 3, 4
)

// Attributes of a key.
const (
	keyEncap, keyInPort, keyEthernet, keyVLAN, keyEtherType, keyIPv4, keyIPv6 = 1, 3, 4, 5, 6, 7, 8

	keyTCP, keyUDP, keyICMP, keyICMPv6, keyARP, keyND, keyTunnel, keySCTP, keyTCPFlags = 9, 10, 11, 12, 13, 14, 16, 17, 18
)

// Attributes of a tunnel key.
const (
	tunID, tunIPv4Dst, tunTTL, tunChecksum, tunIPv6Dst = 0, 2, 4, 6, 13
)

// Actions, and what is nested in them.
const (
	actOutput, actUserspace, actSet, actPushVLAN, actPopVLAN, actSetMasked, actCheckLen, actDecTTL = 1, 2, 3, 4, 5, 11, 21, 23

	userPID, userData = 1, 2
	decTTLAction      = 1

	checkLenMost, checkLenGreater, checkLenFits = 1, 2, 3
)

// Lengths of structs in keys.
const (
	lenEthernet, lenIPv4, lenIPv6, lenARP, lenND = 12, 12, 40, 24, 28
)

// protoFragment stands for the protocol of a later IPv6 fragment in the kernel's key (NEXTHDR_FRAGMENT).
const protoFragment = 44
