#pragma once

#include <string>

/// Lines as Suricata writes them (documented in its user guide, "Eve JSON Format"). 192.0.2.10 is
/// the guest, 198.51.100.7 the attacker.
namespace ivmm::watch::test {

/// Version 6: no direction, and the flow without its addresses.
inline const std::string kEve6 =
    R"({"timestamp":"2026-02-08T17:00:12.648463+0100","flow_id":1038930578016525,)"
    R"("in_iface":"mirror0","event_type":"alert","src_ip":"198.51.100.7","src_port":49757,)"
    R"("dest_ip":"192.0.2.10","dest_port":80,"proto":"TCP","metadata":{"flowbits":["seen"]},)"
    R"("tx_id":0,"alert":{"action":"allowed","gid":1,"signature_id":2018358,"rev":10,)"
    R"("signature":"ET EXPLOIT Some Overflow","category":"Attempted Administrator Privilege Gain",)"
    R"("severity":1,"metadata":{"created_at":["2014_04_04"],"updated_at":["2019_10_08"]}},)"
    R"("http":{"hostname":"web","url":"/cgi","http_method":"POST","protocol":"HTTP/1.1"},)"
    R"("app_proto":"http","flow":{"pkts_toserver":4,"pkts_toclient":3,"bytes_toserver":600,)"
    R"("bytes_toclient":300,"start":"2026-02-08T17:00:12.500000+0100"},"payload":"AAAA",)"
    R"("payload_printable":"....","stream":1})";

/// Version 6, set off by what the server has answered, by a rule with a target.
inline const std::string kEve6Target =
    R"({"timestamp":"2026-02-08T17:00:13.000001+0100","flow_id":1038930578016526,)"
    R"("event_type":"alert","src_ip":"192.0.2.10","src_port":80,"dest_ip":"198.51.100.7",)"
    R"("dest_port":49758,"proto":"TCP","alert":{"action":"allowed","gid":1,)"
    R"("signature_id":2100498,"rev":7,"signature":"GPL ATTACK_RESPONSE id check returned root",)"
    R"("category":"Potentially Bad Traffic","severity":2,)"
    R"("source":{"ip":"198.51.100.7","port":49758},"target":{"ip":"192.0.2.10","port":80}}})";

/// Version 7, set off by what the server has answered.
inline const std::string kEve7 =
    R"({"timestamp":"2026-02-08T17:00:14.150781+0000","flow_id":1180526643469803,)"
    R"("in_iface":"mirror0","event_type":"alert","src_ip":"192.0.2.10","src_port":80,)"
    R"("dest_ip":"198.51.100.7","dest_port":49759,"proto":"TCP","pkt_src":"wire/pcap",)"
    R"("community_id":"1:MuSlbWV2Dy5Z168c5sxOWncbYyQ=","alert":{"action":"allowed","gid":1,)"
    R"("signature_id":2100498,"rev":7,"signature":"GPL ATTACK_RESPONSE id check returned root",)"
    R"("category":"Potentially Bad Traffic","severity":2},"app_proto":"http",)"
    R"("direction":"to_client","flow":{"pkts_toserver":6,"pkts_toclient":3,"bytes_toserver":532,)"
    R"("bytes_toclient":4556,"start":"2026-02-08T17:00:14.078254+0000",)"
    R"("src_ip":"198.51.100.7","dest_ip":"192.0.2.10","src_port":49759,"dest_port":80}})";

/// Version 7, IPv6 as Suricata writes it.
inline const std::string kEve7V6 =
    R"({"timestamp":"2026-02-08T17:00:15.000000+0000","flow_id":77,"event_type":"alert",)"
    R"("src_ip":"2001:0db8:0000:0000:0000:0000:0000:0007","src_port":40000,)"
    R"("dest_ip":"2001:0db8:0000:0000:0000:0000:0000:0010","dest_port":22,"proto":"TCP",)"
    R"("alert":{"action":"blocked","gid":1,"signature_id":2001219,"rev":20,)"
    R"("signature":"ET SCAN Potential SSH Scan","category":"Attempted Information Leak",)"
    R"("severity":2},"direction":"to_server","flow":{"pkts_toserver":1,"pkts_toclient":0,)"
    R"("bytes_toserver":74,"bytes_toclient":0,"start":"2026-02-08T17:00:15.000000+0000",)"
    R"("src_ip":"2001:0db8:0000:0000:0000:0000:0000:0007",)"
    R"("dest_ip":"2001:0db8:0000:0000:0000:0000:0000:0010","src_port":40000,"dest_port":22}})";

inline const std::string kEveFlow =
    R"({"timestamp":"2026-02-08T17:00:16.0+0000","flow_id":78,"event_type":"flow",)"
    R"("src_ip":"198.51.100.7","dest_ip":"192.0.2.10","proto":"ICMP","flow":{"state":"new"}})";

}  // namespace ivmm::watch::test
