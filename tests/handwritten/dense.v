// y = phi(W x + b).
module combine #(
    parameter PHI = "identity", W_acc_y = 8, F_acc_y = 0, W_a_y = 8, F_a_y = 0, S_a_y = 1, W_y = 8, F_y = 0, S_y = 1
) (input signed [W_acc_y-1:0] acc_y, output [W_a_y-1:0] a_y, output [W_y-1:0] y);
  wire signed [W_a_y:0] a;
  wire signed [W_y:0] new_y;
  store #(.WI(W_acc_y), .FI(F_acc_y), .W(W_a_y), .F(F_a_y), .S(S_a_y)) pre (acc_y, a);
  activate #(.KIND(PHI), .WI(W_a_y + 1), .FI(F_a_y), .W(W_y), .F(F_y), .S(S_y)) output_y (a, new_y);
  assign a_y = a[W_a_y-1:0];
  assign y = new_y[W_y-1:0];
endmodule
