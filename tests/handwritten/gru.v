// r = sigma(a_r), z = sigma(a_z); n = phi(a_nx + r a_nh), the reset behind the product; h' = (1 - z) n + z h.
module combine #(
    parameter SIGMA = "hard_sigmoid", PHI = "hard_tanh",
    W_acc_r = 8, F_acc_r = 0, W_acc_z = 8, F_acc_z = 0, W_acc_nx = 8, F_acc_nx = 0, W_acc_nh = 8, F_acc_nh = 0,
    W_a_r = 8, F_a_r = 0, S_a_r = 1, W_a_z = 8, F_a_z = 0, S_a_z = 1, W_a_nx = 8, F_a_nx = 0, S_a_nx = 1,
    W_a_nh = 8, F_a_nh = 0, S_a_nh = 1, W_r = 8, F_r = 0, S_r = 1, W_z = 8, F_z = 0, S_z = 1,
    W_n = 8, F_n = 0, S_n = 1, W_h = 8, F_h = 0, S_h = 1
) (
    input signed [W_acc_r-1:0] acc_r, input signed [W_acc_z-1:0] acc_z, input signed [W_acc_nx-1:0] acc_nx,
    input signed [W_acc_nh-1:0] acc_nh, input [W_h-1:0] old_h,
    output [W_a_r-1:0] a_r, output [W_a_z-1:0] a_z, output [W_a_nx-1:0] a_nx, output [W_a_nh-1:0] a_nh,
    output [W_r-1:0] r, output [W_z-1:0] z, output [W_n-1:0] n, output [W_h-1:0] h
);
  wire signed [W_a_r:0] pre_r;
  wire signed [W_a_z:0] pre_z;
  wire signed [W_a_nx:0] pre_nx;
  wire signed [W_a_nh:0] pre_nh;
  store #(.WI(W_acc_r), .FI(F_acc_r), .W(W_a_r), .F(F_a_r), .S(S_a_r)) store_r (acc_r, pre_r);
  store #(.WI(W_acc_z), .FI(F_acc_z), .W(W_a_z), .F(F_a_z), .S(S_a_z)) store_z (acc_z, pre_z);
  store #(.WI(W_acc_nx), .FI(F_acc_nx), .W(W_a_nx), .F(F_a_nx), .S(S_a_nx)) store_nx (acc_nx, pre_nx);
  store #(.WI(W_acc_nh), .FI(F_acc_nh), .W(W_a_nh), .F(F_a_nh), .S(S_a_nh)) store_nh (acc_nh, pre_nh);

  wire signed [W_r:0] gate_r;
  wire signed [W_z:0] gate_z;
  activate #(.KIND(SIGMA), .WI(W_a_r + 1), .FI(F_a_r), .W(W_r), .F(F_r), .S(S_r)) activate_r (pre_r, gate_r);
  activate #(.KIND(SIGMA), .WI(W_a_z + 1), .FI(F_a_z), .W(W_z), .F(F_z), .S(S_z)) activate_z (pre_z, gate_z);

  // r a_nh has F_r + F_a_nh bits of fraction, a_nx has F_a_nx.
  localparam F_SUM = F_r + F_a_nh > F_a_nx ? F_r + F_a_nh : F_a_nx;
  localparam W_SUM = W_r + W_a_nh + W_a_nx + F_r + F_a_nh + F_a_nx + 4;
  wire signed [W_r+W_a_nh+1:0] reset = gate_r * pre_nh;
  wire signed [W_SUM-1:0] reset_there = reset;
  wire signed [W_SUM-1:0] input_there = pre_nx;
  wire signed [W_SUM-1:0] candidate = (input_there <<< (F_SUM - F_a_nx)) + (reset_there <<< (F_SUM - F_r - F_a_nh));
  wire signed [W_n:0] gate_n;
  activate #(.KIND(PHI), .WI(W_SUM), .FI(F_SUM), .W(W_n), .F(F_n), .S(S_n)) activate_n (candidate, gate_n);

  wire signed [W_h:0] before, after;
  value #(.W(W_h), .S(S_h)) value_h (old_h, before);
  mix #(.W_z(W_z), .F_z(F_z), .W_a(W_n), .F_a(F_n), .W_b(W_h), .F_b(F_h), .W(W_h), .F(F_h), .S(S_h))
      mix_h (gate_z, gate_n, before, after);

  assign a_r = pre_r[W_a_r-1:0];
  assign a_z = pre_z[W_a_z-1:0];
  assign a_nx = pre_nx[W_a_nx-1:0];
  assign a_nh = pre_nh[W_a_nh-1:0];
  assign r = gate_r[W_r-1:0];
  assign z = gate_z[W_z-1:0];
  assign n = gate_n[W_n-1:0];
  assign h = after[W_h-1:0];
endmodule
